/* names: names of ONNX models stay in comments and strings of what is made of them.
 *
 *   names [--seed N] [--count N] [--llvm EVERY]     random names: as many models, 1 after the other
 *   names --write FILE [--seed N] [--bytes N]       the model of one seed; seed 0: with plain names; all names of so many bytes
 *
 * One small model has a name wherever ONNX has room for one. It is compiled with plain names, then with random ones made of what
 * ends comments, strings and lines of C, of LLVM's assembly, Graphviz, JSON and HTML. Each text must then be the plain one's
 * tokens: comments and blanks are none, a string is one token whatever it holds, and identifiers may be called
 * otherwise, one for one, if they are no words of C or C++. C is split twice, with trigraphs and without. Dumps of the IR, where
 * names are quoted or not, have the plain one's lines and read back as what they are; reports have the same lines. */
#include "wire.h"

#include "codegen/codegen.h"
#include "codegen/llvm.h"
#include "codegen/program.h"
#include "compiler/dot.h"
#include "compiler/namemap.h"
#include "compiler/pass.h"
#include "compiler/remark.h"
#include "frontends/file.h"
#include "frontends/onnx.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- random names --------------------------------------------------------------------------------------- */

static uint64_t state;
static size_t exact; /* bytes of every name; 0: as many as come */

static uint32_t below(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
    return (uint32_t)((state >> 33) % n);
}

static const char *const parts[] = {
    "*", "/", "\\", "?", "\n", "\"", "'", "%", "$", ";", "#", "<", ">", "*/", "/*", "//", "?" "?/", "?" "?/\n", "?" "?'", "\\\n", "\r", "\t", "\v", "\f",
    "\033[31m", "\033]0;x\a", "\b", "\177", "\x80", "\xff", "\xc0\xaf", "\xe2\x80\xae", "\xe2\x81\xa6", "\xf0\x9f\x98\x80", "%s", "%n", "%p%p", "{}",
    "{", "}", "(", ")", "[", "]", "&", "|", "!", "@", "^", "~", "`", ",", ".", ":", "=", "+", "-", "_", " ", "a", "B", "x1", "0", "42", "int", "while",
    "return", "class", "template", "namespace", "restrict", "main", "NULL", "errno", "I", "E", "__LINE__", "__attribute__", "#include <x>", "#define x",
    "\n#error x\n", "__asm__(\"x\")", "]]>", "<script>", "</style>", "-->", "<!--", "&lt;", "!dbg", "c\"x\"", "\\22", "\\0a", "\"}", "\", \"x\": \"",
    "label=", "->", "\\N", "digraph", "declare void @x()", "define", "\n}\n", "func @f", "!\"x\"", "return %x", "moec_run", "model_program", "k0", "w_1", "d0",
};

static Str odd_name(Arena *a) {
    Text t = {0};
    uint32_t n = below(64) == 0 ? 200 + below(3000) : 1 + below(9);
    for (uint32_t i = 0; i < n; i++) {
        const char *part = parts[below(sizeof parts / sizeof *parts)];
        text_add(&t, part, strlen(part));
    }
    while (exact && t.n < exact) {
        const char *part = parts[below(sizeof parts / sizeof *parts)];
        text_add(&t, part, strlen(part));
    }
    t.n = exact ? exact : t.n;
    Str s = {arena_copy(a, t.p, t.n), t.n};
    text_free(&t);
    return s;
}

/* ---- the model --------------------------------------------------------------------------------------------- */

enum {
    N_GRAPH, N_X, N_COND, N_W, N_B, N_SCALE, N_H, N_SUM, N_ACT, N_THEN, N_ELSE, N_IF, N_Y, N_Z, N_BATCH, N_NODE0, N_NODE1, N_NODE2, N_NODE3, N_NODE4, N_NODE5,
    N_BRANCH0, N_BRANCH1, N_PRODUCER, N_DOC, N_KEY, N_VALUE, NAMES
};

static Str name_at(Arena *a, const Str *have, int i, bool plain) {
    if (plain) return str_c(arena_printf(a, "name%d", i));
    for (;;) {
        Str s = odd_name(a);
        int k = 0;
        while (k < i && !str_eq(s, have[k])) k++;
        if (k == i) return s;
    }
}

static Text node_of(const char *op, Str name, Str doc, Str out, const Str *in, int n_in) {
    Text t = {0};
    for (int i = 0; i < n_in; i++) wire_bytes(&t, NODE_INPUT, in[i]);
    wire_bytes(&t, NODE_OUTPUT, out);
    wire_bytes(&t, NODE_NAME, name);
    wire_text(&t, NODE_OP, op);
    wire_bytes(&t, NODE_DOC, doc);
    return t;
}

static void add_node(Text *graph, const char *op, const Str *n, int name, int out, int a, int b) {
    Str in[2] = {n[a], n[b < 0 ? a : b]};
    Text t = node_of(op, n[name], n[N_DOC], n[out], in, b < 0 ? 1 : 2);
    wire_message(graph, GRAPH_NODE, &t);
}

static void add_weight(Text *graph, const Str *n, int name, const int64_t *dim, int rank) {
    Text t = {0};
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        wire_int(&t, TENSOR_DIM, (uint64_t)dim[i]);
        count *= dim[i];
    }
    float *v = mem_alloc((size_t)count * sizeof *v);
    for (int64_t i = 0; i < count; i++) v[i] = (float)(i % 7) * 0.25f - 0.5f;
    wire_int(&t, TENSOR_TYPE, FLOAT32);
    wire_bytes(&t, TENSOR_NAME, n[name]);
    wire_bytes(&t, TENSOR_RAW, (Str){(char *)v, (size_t)count * sizeof *v});
    wire_bytes(&t, TENSOR_DOC, n[N_DOC]);
    mem_free(v);
    wire_message(graph, GRAPH_TENSOR, &t);
}

static void add_branch(Text *node, const char *which, const char *op, const Str *n, int graph_name, int node_name, int out) {
    static const int64_t none[1];
    Text graph = {0}, attr = {0}, value = wire_value(n[out], FLOAT32, none, 0, n[N_BATCH], n[N_DOC]);
    add_node(&graph, op, n, node_name, out, N_SUM, -1);
    wire_bytes(&graph, GRAPH_NAME, n[graph_name]);
    text_free(&value);
    static const int64_t dim[] = {-1, 32};
    value = wire_value(n[out], FLOAT32, dim, 2, n[N_BATCH], n[N_DOC]);
    wire_message(&graph, GRAPH_OUTPUT, &value);
    wire_text(&attr, ATTR_NAME, which);
    wire_message(&attr, ATTR_GRAPH, &graph);
    wire_bytes(&attr, ATTR_DOC, n[N_DOC]);
    wire_int(&attr, ATTR_TYPE, TYPE_GRAPH);
    wire_message(node, NODE_ATTR, &attr);
}

/* z = softmax(if cond then relu(h) else tanh(h)) * scale, y = h, where h = x w + b. */
static Text model_of(Arena *a, bool plain) {
    static const int64_t row[] = {-1, 32}, weight[] = {32, 32}, bias[] = {32};
    Str n[NAMES];
    for (int i = 0; i < NAMES; i++) n[i] = name_at(a, n, i, plain);
    Text graph = {0}, v;
    add_node(&graph, "MatMul", n, N_NODE0, N_H, N_X, N_W);
    add_node(&graph, "Add", n, N_NODE1, N_SUM, N_H, N_B);
    Text branch = node_of("If", n[N_NODE2], n[N_DOC], n[N_IF], &n[N_COND], 1);
    add_branch(&branch, "then_branch", "Relu", n, N_BRANCH0, N_NODE4, N_THEN);
    add_branch(&branch, "else_branch", "Tanh", n, N_BRANCH1, N_NODE5, N_ELSE);
    wire_message(&graph, GRAPH_NODE, &branch);
    add_node(&graph, "Softmax", n, N_NODE3, N_ACT, N_IF, -1);
    add_node(&graph, "Mul", n, N_GRAPH, N_Z, N_ACT, N_SCALE);
    add_node(&graph, "Identity", n, N_DOC, N_Y, N_SUM, -1);
    wire_bytes(&graph, GRAPH_NAME, n[N_GRAPH]);
    wire_bytes(&graph, GRAPH_DOC, n[N_DOC]);
    add_weight(&graph, n, N_W, weight, 2);
    add_weight(&graph, n, N_B, bias, 1);
    add_weight(&graph, n, N_SCALE, bias, 1);
    v = wire_value(n[N_X], FLOAT32, row, 2, n[N_BATCH], n[N_DOC]);
    wire_message(&graph, GRAPH_INPUT, &v);
    v = wire_value(n[N_COND], BOOL, row, 0, n[N_BATCH], n[N_DOC]);
    wire_message(&graph, GRAPH_INPUT, &v);
    v = wire_value(n[N_Y], FLOAT32, row, 2, n[N_BATCH], n[N_DOC]);
    wire_message(&graph, GRAPH_OUTPUT, &v);
    v = wire_value(n[N_Z], FLOAT32, row, 2, n[N_BATCH], n[N_DOC]);
    wire_message(&graph, GRAPH_OUTPUT, &v);
    v = wire_value(n[N_SUM], FLOAT32, row, 2, n[N_BATCH], n[N_DOC]);
    wire_message(&graph, GRAPH_VALUE, &v);
    Text model = wire_model(&graph), entry = {0};
    wire_bytes(&model, MODEL_PRODUCER, n[N_PRODUCER]);
    wire_bytes(&model, MODEL_VERSION, n[N_VALUE]);
    wire_bytes(&model, MODEL_DOMAIN, n[N_KEY]);
    wire_bytes(&model, MODEL_DOC, n[N_DOC]);
    wire_bytes(&entry, 1, n[N_KEY]);
    wire_bytes(&entry, 2, n[N_VALUE]);
    wire_message(&model, MODEL_METADATA, &entry);
    return model;
}

/* ---- texts ----------------------------------------------------------------------------------------------------- */

typedef enum Form { FORM_C, FORM_HEADER, FORM_LLVM, FORM_IR, FORM_DOT, FORM_REMARKS, FORM_JSON, FORMS } Form;

/* How a language looks: what begins and ends comments, what starts a string, whether `\` stands before a byte of it, and what
 * identifiers begin with beside letters. */
static const struct Language {
    const char *name, *line, *open, *close;
    bool backslash, trigraphs, spliced;
    const char *sigils, *inner;
} languages[FORMS] = {
    [FORM_C] = {"C", NULL, "/*", "*/", true, true, true, "_", "_"},
    [FORM_HEADER] = {"header", NULL, "/*", "*/", true, true, true, "_", "_"},
    [FORM_LLVM] = {"LLVM", ";", NULL, NULL, false, false, false, "_%@!#", "_.$-"},
    [FORM_IR] = {"IR", NULL, NULL, NULL, true, false, false, NULL, NULL},
    [FORM_DOT] = {"dot", NULL, NULL, NULL, true, false, false, "_", "_"},
    [FORM_REMARKS] = {"remarks", NULL, NULL, NULL, true, false, false, NULL, NULL},
    [FORM_JSON] = {"JSON", NULL, NULL, NULL, true, false, false, NULL, NULL},
};

typedef struct Made {
    Text form[FORMS];
} Made;

static Str vocabulary;

static bool make_llvm(const Program *p, Text *out, Diag *d) {
    LlvmOptions how = {.level = 0, .form = LLVM_FORM_IR, .vocabulary = vocabulary, .cpu = "generic"};
    return llvm_emit(p, &how, out, d);
}

static bool make(const char *path, bool llvm, Made *out, Diag *d) {
    Arena *a = arena_new();
    Module *m = module_new();
    OnnxFiles *files = onnx_files_new();
    PassOptions options = {.plain = true, .opt_level = 2};
    PassRun run = {.options = &options};
    Image image;
    Program *p = NULL;
    CodegenOptions how = {.prefix = "model", .plain_matmul = true};
    m->remarks = remarks_new();
    bool ok = onnx_import(m, path, "main", files, d) && passes_run(m, &run, d);
    if (ok) {
        module_print(m, &out->form[FORM_IR]);
        module_dot(m, true, NULL, &out->form[FORM_DOT]);
    }
    ok = ok && image_plan(m, "model", a, &image, d) && (p = program_lower(m, &image, &how, d)) != NULL;
    if (ok) {
        program_print_c(p, &out->form[FORM_C]);
        program_print_header(p, &out->form[FORM_HEADER]);
        remarks_text(m->remarks, &out->form[FORM_REMARKS]);
        remarks_json(m->remarks, &out->form[FORM_JSON]);
    }
    ok = ok && (!llvm || make_llvm(p, &out->form[FORM_LLVM], d));
    if (p) program_free(p);
    remarks_free(m->remarks);
    module_free(m);
    onnx_files_free(files);
    arena_free(a);
    return ok;
}

static void made_free(Made *m) {
    for (int i = 0; i < FORMS; i++) text_free(&m->form[i]);
}

/* ---- tokens -------------------------------------------------------------------------------------------------------- */

/* Phases 1 and 2 of a C compiler. */
static Text spliced(const Text *t, bool trigraphs) {
    static const char from[] = "=/'()!<>-", to[] = "#\\^[]|{}~";
    Text first = {0}, out = {0};
    for (size_t i = 0; i < t->n; i++) {
        const char *k = trigraphs && i + 2 < t->n && t->p[i] == '?' && t->p[i + 1] == '?' && t->p[i + 2] ? strchr(from, t->p[i + 2]) : NULL;
        text_add(&first, k ? &to[k - from] : &t->p[i], 1);
        i += k ? 2 : 0;
    }
    for (size_t i = 0; i < first.n; i++) {
        size_t k = i + 1;
        while (first.p[i] == '\\' && k < first.n && (first.p[k] == ' ' || first.p[k] == '\t' || first.p[k] == '\r')) k++;
        if (first.p[i] == '\\' && k < first.n && first.p[k] == '\n') i = k;
        else text_add(&out, &first.p[i], 1);
    }
    text_free(&first);
    return out;
}

typedef struct Lexer {
    const struct Language *l;
    const char *p, *end;
    bool bad;
} Lexer;

static bool starts(const Lexer *x, const char *word) {
    size_t n = word ? strlen(word) : 0;
    return n && (size_t)(x->end - x->p) >= n && !memcmp(x->p, word, n);
}

/* Behind the string or comment at p; none that is not ended, and no string over lines. */
static void skip_string(Lexer *x, char quote) {
    for (x->p++; x->p < x->end && *x->p != quote && *x->p != '\n'; x->p++)
        if (x->l->backslash && *x->p == '\\' && x->p + 1 < x->end) x->p++;
    x->bad |= x->p == x->end || *x->p != quote;
    x->p += x->p < x->end;
}

static void skip_comment(Lexer *x) {
    x->p += strlen(x->l->open);
    while (x->p < x->end && !starts(x, x->l->close)) x->p++;
    x->bad |= x->p == x->end;
    x->p += x->p < x->end ? strlen(x->l->close) : 0;
}

static bool is_inner(const Lexer *x, char c) {
    return isalnum((unsigned char)c) || (c && x->l->inner && strchr(x->l->inner, c));
}

/* The next token; a string is `"`, the end is empty. All text is printable ASCII and newlines. */
static Str next(Lexer *x) {
    for (;;) {
        while (x->p < x->end && (*x->p == ' ' || *x->p == '\n')) x->p++;
        if (x->p == x->end) return (Str){x->p, 0};
        if (starts(x, x->l->line)) while (x->p < x->end && *x->p != '\n') x->p++;
        else if (starts(x, x->l->open)) skip_comment(x);
        else break;
    }
    const char *from = x->p;
    x->bad |= *from < 32 || *from > 126;
    if (*from == '"') {
        skip_string(x, '"');
        return (Str){"\"", 1};
    }
    if (x->l->spliced && *from == '\'') {
        skip_string(x, '\'');
        return (Str){from, (size_t)(x->p - from)};
    }
    x->p++;
    if (isalnum((unsigned char)*from) || (x->l->sigils && strchr(x->l->sigils, *from)))
        while (x->p < x->end && is_inner(x, *x->p)) x->p++;
    return (Str){from, (size_t)(x->p - from)};
}

static const char *const words[] = {
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float", "for", "goto", "if", "inline",
    "int", "long", "register", "restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void",
    "volatile", "while", "asm", "bool", "catch", "class", "delete", "explicit", "export", "false", "friend", "mutable", "namespace", "new", "operator",
    "private", "protected", "public", "template", "this", "throw", "true", "try", "typeid", "typename", "using", "virtual", "wchar_t", "main", "NULL", "I",
};

static bool is_word(Str s) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_is(s, words[i])) return true;
    return false;
}

typedef Vec(Str) Tokens;

static void tokens_of(const struct Language *l, const Text *t, Tokens *out, bool *bad) {
    Lexer x = {.l = l, .p = t->p ? t->p : "", .end = (t->p ? t->p : "") + t->n};
    for (Str s; (s = next(&x)).n;) {
        size_t n = out->count;
        if (n > 0 && s.p[0] == '"' && out->item[n - 1].p[0] == '"') continue; /* "a" "b" is one */
        if (l == &languages[FORM_LLVM] && str_is(s, "i8") && n > 1 && str_is(out->item[n - 1], "x")) out->item[n - 2] = str_c("#"); /* a string's bytes */
        vec_push(out, s);
    }
    *bad |= x.bad;
}

/* A string too long for C99 is `(const char[]){...}`. */
static void join_arrays(Tokens *t) {
    static const char *const head[] = {"(", "const", "char", "[", "]", ")", "{"};
    enum { HEAD = sizeof head / sizeof *head };
    size_t to = 0;
    for (size_t i = 0; i < t->count; i++) {
        size_t k = 0;
        while (k < HEAD && i + k < t->count && str_is(t->item[i + k], head[k])) k++;
        t->item[to++] = k == HEAD ? str_c("\"") : t->item[i];
        for (i += k == HEAD ? k : 0; k == HEAD && i < t->count && t->item[i].p[0] != '}';) i++;
    }
    t->count = to;
}

/* One to one: a's k-th name stands where b's k-th does. */
static bool same_names(const Tokens *a, const Tokens *b, size_t *at) {
    NameMap ab = {0}, ba = {0};
    bool ok = a->count == b->count;
    for (*at = 0; *at < a->count && *at < b->count; ++*at) {
        Str s = a->item[*at], t = b->item[*at];
        uint32_t i = (uint32_t)*at, k = i;
        bool name = isalpha((unsigned char)s.p[0]) || (s.n > 1 && (s.p[0] == '_' || s.p[0] == '%' || s.p[0] == '@'));
        bool first = !namemap_find(&ab, s, &i), second = !namemap_find(&ba, t, &k);
        if (first) namemap_add(&ab, s, (uint32_t)*at);
        if (second) namemap_add(&ba, t, (uint32_t)*at);
        if (!str_eq(s, t) && (!name || s.p[0] != t.p[0] ? !isalpha((unsigned char)t.p[0]) || !name : false)) break;
        if (i != k || (!str_eq(s, t) && (is_word(s) || is_word(t)))) break;
    }
    ok = ok && *at == a->count;
    namemap_free(&ab);
    namemap_free(&ba);
    return ok;
}

static void show_around(const Tokens *t, size_t at) {
    for (size_t i = at > 12 ? at - 12 : 0; i < t->count && i < at + 6; i++) printf(" %.*s", (int)t->item[i].n, t->item[i].p);
    printf("\n");
}

static bool compare_split(const struct Language *l, const Text *plain, const Text *odd, bool trigraphs) {
    Text a = l->spliced ? spliced(plain, trigraphs) : *plain, b = l->spliced ? spliced(odd, trigraphs) : *odd;
    Tokens x = {0}, y = {0};
    bool bad = false;
    size_t at = 0;
    tokens_of(l, &a, &x, &bad);
    tokens_of(l, &b, &y, &bad);
    if (l->spliced) join_arrays(&x);
    if (l->spliced) join_arrays(&y);
    bool ok = !bad && same_names(&x, &y, &at);
    if (bad) printf("%s: a string or comment without its end, or bytes that are not printable\n", l->name);
    else if (!ok) {
        printf("%s: token %zu of %zu and %zu\n", l->name, at, x.count, y.count);
        show_around(&x, at);
        show_around(&y, at);
    }
    vec_free(&x);
    vec_free(&y);
    if (l->spliced) text_free(&a);
    if (l->spliced) text_free(&b);
    return ok;
}

static bool same_lines(const struct Language *l, const Text *plain, const Text *odd) {
    size_t lines[2] = {0, 0};
    bool bad = false;
    for (size_t i = 0; i < plain->n; i++) lines[0] += plain->p[i] == '\n';
    for (size_t i = 0; i < odd->n; i++) {
        lines[1] += odd->p[i] == '\n';
        bad |= odd->p[i] != '\n' && (odd->p[i] < 32 || odd->p[i] > 126);
    }
    if (bad || lines[0] != lines[1]) printf("%s: %zu lines, %zu with plain names%s\n", l->name, lines[1], lines[0], bad ? ", and bytes that are not printable" : "");
    return !bad && lines[0] == lines[1];
}

/* Dumps are read back as what was written. */
static bool same_when_read(const Text *t) {
    Diag *d = diag_new();
    Text again = {0};
    Module *m = module_parse(d, "names.ir", t->p, t->n);
    if (m) module_print(m, &again);
    bool ok = m && again.n == t->n && !memcmp(again.p, t->p, t->n);
    if (!ok) printf("IR: does not read back as what it is\n");
    diag_flush(d);
    diag_free(d);
    if (m) module_free(m);
    text_free(&again);
    return ok;
}

static bool compare(const struct Language *l, const Text *plain, const Text *odd) {
    if (l == &languages[FORM_IR]) return same_lines(l, plain, odd) && same_when_read(odd);
    if (l == &languages[FORM_REMARKS]) return same_lines(l, plain, odd);
    return compare_split(l, plain, odd, false) && (!l->trigraphs || compare_split(l, plain, odd, true));
}

/* ---- main ------------------------------------------------------------------------------------------------------------ */

static void put(const char *path, const Text *t) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(t->p, 1, t->n, f) != t->n || fclose(f)) {
        fprintf(stderr, "names: cannot write %s\n", path);
        exit(1);
    }
}

static bool made_of(uint64_t seed, const char *path, bool llvm, Made *out) {
    Arena *a = arena_new();
    Diag *d = diag_new();
    state = seed * 0x9e3779b97f4a7c15u;
    Text model = model_of(a, seed == 0);
    put(path, &model);
    *out = (Made){0};
    bool ok = make(path, llvm, out, d);
    diag_flush(d);
    diag_free(d);
    text_free(&model);
    arena_free(a);
    return ok;
}

static int check(uint64_t seed, uint64_t count, uint64_t every) {
    char path[] = "names.XXXXXX";
    int fd = mkstemp(path), failed = 0;
    Made plain;
    Diag *d = diag_new();
    Arena *a = arena_new();
    if (every && !file_read(a, MOEC_BUILD_DIR "/gen/vocabulary_plain.bc", 1 << 24, &vocabulary, d)) every = 0;
    diag_free(d);
    if (fd < 0 || !made_of(0, path, every > 0, &plain)) return 1;
    close(fd);
    for (uint64_t i = seed; i < seed + count && failed < 5; i++) {
        bool llvm = every && i % every == 0;
        Made odd;
        bool ok = made_of(i, path, llvm, &odd);
        for (int k = 0; k < FORMS && ok; k++)
            if (k != FORM_LLVM || llvm) ok = compare(&languages[k], &plain.form[k], &odd.form[k]);
        if (!ok) printf("seed %llu fails\n", (unsigned long long)i);
        failed += !ok;
        made_free(&odd);
    }
    unlink(path);
    made_free(&plain);
    arena_free(a);
    printf("names: %llu models, %d failures\n", (unsigned long long)count, failed);
    return failed > 0;
}

int main(int argc, char **argv) {
    uint64_t seed = 1, count = 300, every = 0;
    const char *write = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) seed = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--count")) count = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--llvm")) every = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--bytes")) exact = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--write")) write = argv[i + 1];
    }
    if (!write) return check(seed, count, every);
    Arena *a = arena_new();
    state = seed * 0x9e3779b97f4a7c15u;
    Text model = model_of(a, seed == 0);
    put(write, &model);
    text_free(&model);
    arena_free(a);
    return 0;
}
