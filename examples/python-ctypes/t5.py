"""A compiled model in Python, with nothing but ctypes: greedy decoding, every prompt with the adapter it names.

    moec compile ../t5-tiny --adapter ../t5-tiny/mov10.json --emit=shared --prefix=t5 -o t5.so
    python3 t5.py t5.so 6,90,80,70,1
    python3 t5.py t5.so 6,90,80,70,1 7,90,80,70,1 smallest.safetensors

Prompts take the compiled-in adapter and those given in turn.
"""
import ctypes as c
import sys

ABI = 5  # of moec_rt.h, whose structures these are


class Options(c.Structure):
    _fields_ = [("weights", c.c_char_p), ("adapter", c.c_char_p), ("threads", c.c_int),
                ("message", c.c_char_p), ("message_room", c.c_size_t), ("adapters", c.c_int),
                ("map", c.c_int), ("check", c.c_int), ("weights_of", c.c_void_p)]


class Generate(c.Structure):
    _fields_ = [("max_length", c.c_int64), ("eos", c.c_int64), ("adapter_of_row", c.POINTER(c.c_int32))]


class Model:
    def __init__(self, library, adapters=1):
        self.lib = c.CDLL(library if "/" in library else "./" + library)
        if self.lib.moec_abi() != ABI:
            raise OSError(f"{library}: ABI {self.lib.moec_abi()}, not {ABI}")
        self.lib.t5_program.restype = c.c_void_p
        self.lib.moec_status_text.restype = c.c_char_p
        self.lib.moec_generate_limit.restype = c.c_int64
        self.program, self.model = c.c_void_p(self.lib.t5_program()), c.c_void_p()
        self.limit = self.lib.moec_generate_limit(self.program)
        self.text = c.create_string_buffer(512)
        options = Options(weights=library.replace(".so", ".weights").encode(), message=c.addressof(self.text),
                          message_room=512, adapters=adapters)
        self.check(self.lib.moec_open(self.program, c.byref(options), c.byref(self.model)))

    def check(self, status):
        if status:
            raise RuntimeError((self.text.value or self.lib.moec_status_text(status)).decode())

    def load(self, slot, path):
        room = c.c_size_t(len(self.text))
        self.check(self.lib.moec_load_adapter_slot(self.model, slot, path.encode(), self.text, room))

    def generate(self, prompts, slots):
        rows, length = len(prompts), max(map(len, prompts))
        matrix = c.c_int64 * (rows * length)
        ids = matrix(*(i for p in prompts for i in p + [0] * (length - len(p))))
        mask = matrix(*(int(i < len(p)) for p in prompts for i in range(length)))
        tokens, steps = (c.c_int64 * (rows * self.limit))(), c.c_int64()
        options = Generate(max_length=0, eos=-1, adapter_of_row=(c.c_int32 * rows)(*slots))
        self.text.value = b""
        self.check(self.lib.moec_generate(self.model, c.c_int64(rows), c.c_int64(length), ids, mask, None,
                                          c.byref(options), tokens, c.byref(steps), None, None))
        return [tokens[r * self.limit:r * self.limit + steps.value] for r in range(rows)]

    def close(self):
        self.lib.moec_close(self.model)


prompts = [[int(i) for i in a.split(",")] for a in sys.argv[2:] if not a.endswith(".safetensors")]
adapters = [a for a in sys.argv[2:] if a.endswith(".safetensors")]
model = Model(sys.argv[1], adapters=1 + len(adapters))
for slot, path in enumerate(adapters, 1):
    model.load(slot, path)
for row in model.generate(prompts, [i % (1 + len(adapters)) for i in range(len(prompts))]):
    print(*row)
model.close()
