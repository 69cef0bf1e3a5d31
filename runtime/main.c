/* The command line of a compiled model: options, help, and what all commands need. One table drives both
 * parsing and help. */
#define _POSIX_C_SOURCE 200809L

#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    GENERATE = 1,
    ENCODE = 2,
    SCORE = 4,
    INFO = 8,
    RUN = 16,
    EVAL = 32,
    TRAIN = 64,
    EXPORT = 128,
    TEXTS = GENERATE | ENCODE | SCORE,
    CALLS = TEXTS | EVAL | TRAIN | RUN, /* those that call functions */
    WORK = CALLS | EXPORT,
    ALL = WORK | INFO
};
typedef enum OptionKind {
    OPTION_FLAG,
    OPTION_STRING,
    OPTION_INTEGER,
    OPTION_LIST,
    OPTION_REAL, /* from lo, below hi */
    OPTION_WORD  /* one of those of meta, which | separates: its number, an unsigned */
} OptionKind;

#ifdef MOEC_NO_TRAINING
#define MOEC_CMD_TRAIN NULL
#else
#define MOEC_CMD_TRAIN moec_cmd_train
#endif

static const struct Command {
    const char *name;
    unsigned bit;
    int (*run)(moec_cli *c); /* NULL: not in this program */
    int seq2seq, least, most; /* positional arguments */
    const char *usage, *help;
} commands[] = {
    {"generate", GENERATE, moec_cmd_generate, 1, 0, 0, "",
     "decode greedily; prints a line of ids (or text) for each input; options alone mean this command"},
    {"encode", ENCODE, moec_cmd_encode, 1, 0, 0, "",
     "encoder states: a line for each token, or an .npy file"},
    {"score", SCORE, moec_cmd_score, 1, 0, 0, "",
     "log-probability of targets: a line with the sum, then each token's"},
    {"eval", EVAL, moec_cmd_eval, 1, 0, 0, "",
     "accuracy of choices ranked by log-probability; loss and exact match of pairs"},
    {"train", TRAIN, MOEC_CMD_TRAIN, 1, 0, 0, "",
     "train the adapter on examples; the program has to be compiled with --train"},
    {"export", EXPORT, moec_cmd_export, 0, 0, 0, "", "write the adapter in force as safetensors"},
    {"run", RUN, moec_cmd_run, 0, 1, 1, " FUNCTION", "run one function on .npy files"},
    {"info", INFO, moec_cmd_info, 0, 0, 0, "", "functions, bounds, sizes and adapter of this model"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

#define AT(field) offsetof(moec_cli_options, field)
static const struct Option {
    const char *name, *meta;
    OptionKind kind;
    unsigned commands;
    size_t at;
    int64_t lo, hi; /* numbers */
    const char *help;
} options[] = {
    {"--ids", "IDS", OPTION_LIST, TEXTS, AT(ids), 0, 0,
     "token ids of one input, \"5 9 12 1\"; may be repeated"},
    {"--targets", "IDS", OPTION_LIST, SCORE, AT(targets), 0, 0,
     "token ids of the target of the input in the same place"},
    {"--text", "TEXT", OPTION_LIST, GENERATE | ENCODE, AT(text), 0, 0, "an input as text; may be repeated"},
    {"--jsonl", "FILE", OPTION_STRING, TEXTS, AT(jsonl), 0, 0,
     "inputs, one JSON object a line: \"input_ids\" or \"inputs\" (text); score: \"labels\" or \"targets\"; "
     "\"adapter\": which --adapter, its file or its place among them from 0 (default: 0); - for stdin"},
    {"--data", "FILE", OPTION_LIST, EVAL | TRAIN, AT(data), 0, 0,
     "examples, one JSON object a line: \"inputs\", \"targets\" (text) or \"input_ids\", \"labels\"; "
     "\"task\"; eval also: \"inputs\", \"choices\", \"label\", \"prompt\"; train also: \"weight\"; may be "
     "repeated; - for stdin; train takes FILE:WEIGHT:CAP too: files are drawn from in proportion to WEIGHT "
     "(1) "
     "times their examples, of which at most CAP count"},
#ifndef MOEC_NO_TRAINING
    {"--eval", "FILE", OPTION_LIST, TRAIN, AT(eval), 0, 0,
     "examples as the command eval takes them, to evaluate while training; may be repeated"},
    {"--steps", "N", OPTION_INTEGER, TRAIN, AT(train.steps), 1, (int64_t)1 << 53, "steps of the run"},
    {"--accumulate", "N", OPTION_INTEGER, TRAIN, AT(accumulate), 1, 1 << 20,
     "micro-batches of a step (default: 1)"},
    {"--optimizer", "adafactor|adamw|sgd", OPTION_WORD, TRAIN, AT(train.optimizer), 0, 0,
     "(default: adafactor)"},
    {"--lr", "R", OPTION_REAL, TRAIN, AT(train.learning_rate), 0, INT64_MAX,
     "learning rate at the top of the schedule (default: 3e-4)"},
    {"--schedule", "constant|linear|cosine|inverse-sqrt", OPTION_WORD, TRAIN, AT(train.schedule), 0, 0,
     "of the learning rate (default: constant)"},
    {"--warmup", "N", OPTION_INTEGER, TRAIN, AT(train.warmup), 0, (int64_t)1 << 53,
     "steps in which the learning rate rises from 0 (default: 0)"},
    {"--clip", "NORM", OPTION_REAL, TRAIN, AT(train.clip_norm), 0, INT64_MAX,
     "most norm of the gradient; 0: any (default: 0)"},
    {"--weight-decay", "R", OPTION_REAL, TRAIN, AT(train.weight_decay), 0, INT64_MAX,
     "adamw, sgd (default: 0)"},
    {"--momentum", "R", OPTION_REAL, TRAIN, AT(train.momentum), 0, 1, "sgd (default: 0.9)"},
    {"--beta1", "R", OPTION_REAL, TRAIN, AT(train.beta1), 0, 1, "adamw (default: 0.9)"},
    {"--beta2", "R", OPTION_REAL, TRAIN, AT(train.beta2), 0, 1, "adamw (default: 0.999)"},
    {"--epsilon", "R", OPTION_REAL, TRAIN, AT(train.epsilon), 0, INT64_MAX, "adamw (default: 1e-8)"},
    {"--step-offset", "N", OPTION_INTEGER, TRAIN, AT(train.step_offset), 0, (int64_t)1 << 53,
     "adafactor: steps its average counts as done before the first (default: 0)"},
    {"--dropout", "P", OPTION_REAL, TRAIN, AT(train.dropout), 0, 1, "(default: 0.1)"},
    {"--label-smoothing", "P", OPTION_REAL, TRAIN, AT(train.label_smoothing), 0, 1, "(default: 0)"},
    {"--loss-z", "R", OPTION_REAL, TRAIN, AT(train.z_loss), 0, INT64_MAX,
     "weight of log^2 Z in the loss (default: 1e-4)"},
    {"--reduce", "examples|tokens", OPTION_WORD, TRAIN, AT(reduce), 0, 0,
     "the loss is the mean over examples of their means, or over tokens (default: examples)"},
    {"--pack", NULL, OPTION_FLAG, TRAIN, AT(pack), 0, 0, "several examples a row, each sees itself alone"},
    {"--truncate", NULL, OPTION_FLAG, TRAIN, AT(truncate), 0, 0,
     "cut what is too long for the program (default: it is a bad line)"},
    {"--no-shuffle", NULL, OPTION_FLAG, TRAIN, AT(no_shuffle), 0, 0, "take examples in their files' order"},
    {"--seed", "N", OPTION_INTEGER, TRAIN, AT(train.seed), 0, INT64_MAX,
     "of the examples' order and of dropout (default: 0)"},
    {"--eval-every", "N", OPTION_INTEGER, TRAIN, AT(eval_every), 1, INT64_MAX,
     "evaluate every N steps, and at the end (default: at the end)"},
    {"--eval-limit", "N", OPTION_INTEGER, TRAIN, AT(limit), 1, INT64_MAX,
     "most examples of each --eval file (default: all)"},
    {"--eval-sentence", "FILE", OPTION_STRING, TRAIN, AT(eval_sentence), 0, 0,
     "sentence vectors of the lines of the --eval files, one after the other"},
    {"--save-every", "N", OPTION_INTEGER, TRAIN, AT(save_every), 1, INT64_MAX,
     "a checkpoint every N steps, and at the end (default: 100)"},
    {"--keep", "K", OPTION_INTEGER, TRAIN, AT(keep), 0, INT64_MAX,
     "checkpoints to keep; 0: all (default: 2)"},
    {"--resume", NULL, OPTION_FLAG, TRAIN, AT(resume), 0, 0,
     "go on from the newest checkpoint in --out; from the beginning where there is none"},
    {"--log-every", "N", OPTION_INTEGER, TRAIN, AT(log_every), 1, INT64_MAX,
     "a line every N steps, without a terminal (default: 10)"},
    {"--router-metrics", "N", OPTION_INTEGER, TRAIN, AT(router_metrics), 1, INT64_MAX,
     "load and entropy of every router into metrics.jsonl every N steps"},
    {"--dry-run", NULL, OPTION_FLAG, TRAIN, AT(dry_run), 0, 0,
     "print the memory the run will take, then stop"},
    {"--checkpoint", "DIR", OPTION_STRING, EXPORT, AT(checkpoint), 0, 0,
     "a run's folder, for its newest checkpoint, or one checkpoint's"},
#endif
    {"--base", NULL, OPTION_FLAG, EXPORT, AT(base), 0, 0,
     "of a program compiled with method full: all weights of the model"},
    {"--normalize", "HOW", OPTION_STRING, EVAL, AT(normalize), 0, 0,
     "a choice's score: none, the sum of its log-probabilities (default); length, divided by its tokens"},
    {"--input-eos", NULL, OPTION_FLAG, EVAL | TRAIN, AT(input_eos), 0, 0,
     "inputs that are text end with the end of sequence (default: only choices and targets do)"},
    {"--skip-bad", NULL, OPTION_FLAG, EVAL | TRAIN, AT(skip_bad), 0, 0, "count bad lines and go on"},
    {"--limit", "N", OPTION_INTEGER, EVAL, AT(limit), 1, INT64_MAX,
     "most examples of each file (default: all)"},
    {"--json", "FILE", OPTION_STRING, EVAL, AT(json), 0, 0,
     "write the results as JSON too; - for stdout, without the table"},
    {"--sentence", "FILE", OPTION_STRING, TEXTS | EVAL | TRAIN, AT(sentence), 0, 0,
     "sentence vectors [inputs, width] as .npy, for routers that read them"},
    {"--max-length", "N", OPTION_INTEGER, GENERATE, AT(max_length), 1, INT64_MAX,
     "most tokens to make (default: all that fit)"},
    {"--eos", "ID", OPTION_INTEGER, GENERATE, AT(eos), 0, INT64_MAX,
     "token that ends a sequence (default: the model's)"},
    {"--batch", "N", OPTION_INTEGER, TEXTS | EVAL | TRAIN, AT(batch), 1, INT64_MAX,
     "inputs worked on together; train: rows of a micro-batch (default: 8, or fewer if bound)"},
    {"--in", "NAME=FILE", OPTION_LIST, RUN, AT(in), 0, 0, "an input of the function as .npy; one for each"},
    {"--out", "PATH", OPTION_STRING, RUN | ENCODE | TRAIN | EXPORT, AT(out), 0, 0,
     "encode: .npy file to write; run: folder for the outputs; train: the run's folder, for checkpoints, "
     "metrics.jsonl, adapter.safetensors; export: .safetensors file to write"},
    {"--weights", "FILE", OPTION_STRING, WORK, AT(weights), 0, 0,
     "weights file (default: beside the executable, its name + .weights)"},
    {"--map", NULL, OPTION_FLAG, WORK, AT(map), 0, 0,
     "map the weights file: processes share one copy, and less memory than it has bytes will do; it must not change while it "
     "is used (default: it is read)"},
    {"--check", NULL, OPTION_FLAG, WORK, AT(check), 0, 0,
     "hash the weights and compare them with what was compiled, about a second a gigabyte"},
    {"--adapter", "FILE", OPTION_LIST, WORK, AT(adapter), 0, 0,
     "safetensors to use in place of the compiled-in adapter; train: to start from. generate, encode, score: may "
     "be repeated, for inputs that choose by \"adapter\""},
    {"--tokenizer", "FILE", OPTION_STRING, TEXTS | EVAL | TRAIN, AT(tokenizer), 0, 0,
     "spiece.model to use in place of the compiled-in one"},
    {"--threads", "N", OPTION_INTEGER, WORK, AT(threads), 1, 1024, "threads (default: one a core)"},
    {"--profile", NULL, OPTION_FLAG, CALLS, AT(profile), 0, 0,
     "where the time went, on stderr: functions and kernels; of programs compiled with --profile"},
    {"--profile-calls", NULL, OPTION_FLAG, CALLS, AT(profile_calls), 0, 0,
     "the same with a line for each call of a kernel"},
    {"--profile-json", "FILE", OPTION_STRING, CALLS, AT(profile_json), 0, 0,
     "the same for programs, calls and kernels; - for stdout"},
    {"--help", NULL, OPTION_FLAG, ALL, AT(help), 0, 0, "this text"},
    {"--version", NULL, OPTION_FLAG, ALL, AT(version), 0, 0, "version"},
};
enum { OPTIONS = sizeof options / sizeof *options };

/* ---- messages ---- */

int moec_cli_error(const moec_cli *c, const char *file, int64_t line, const char *fmt, ...) {
    char text[MOEC_MESSAGE], where[MOEC_SHOW];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fflush(stdout);
    fprintf(stderr, "%s", file ? moec_show_path(where, file) : c->name);
    if (line)
        fprintf(stderr, ":%lld", (long long)line);
    fprintf(stderr, ": error: %s\n", text);
    return EXIT_INPUT;
}

int moec_cli_usage(const moec_cli *c, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s: error: ", c->name);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, " (see %s --help)\n", c->name);
    va_end(args);
    return EXIT_USAGE;
}

int moec_cli_status(const moec_cli *c, moec_status s) {
    if (s == MOEC_OK)
        return EXIT_DONE;
    if (!c->message[0])
        moec_cli_error(c, NULL, 0, "%s", moec_status_text(s));
    else if (!strncmp(c->message, "error: ", 7))
        moec_cli_error(c, NULL, 0, "%s", c->message + 7);
    else
        fflush(stdout), fprintf(stderr, "%s\n", c->message);
    return s == MOEC_E_ARGUMENT ? EXIT_BUG : EXIT_INPUT;
}

moec_sink moec_cli_sink(moec_cli *c) {
    c->message[0] = 0;
    return (moec_sink){c->message, sizeof c->message};
}

int moec_cli_no_memory(const moec_cli *c) {
    return moec_cli_error(c, NULL, 0, "out of memory");
}

void moec_cli_warn(void *ctx, const char *line) {
    (void)ctx;
    fprintf(stderr, "%s\n", line);
}

int moec_cli_integer(const char *s, int64_t *out) {
    int negative = *s == '-';
    uint64_t v = 0;
    s += negative;
    if (!*s)
        return 0;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || v > ((uint64_t)INT64_MAX - (uint64_t)(*s - '0')) / 10)
            return 0;
        v = v * 10 + (uint64_t)(*s - '0');
    }
    *out = negative ? -(int64_t)v : (int64_t)v;
    return 1;
}

int moec_cli_real(const char *s, double *out) {
    char *end;
    if (!strchr("+-.0123456789", *s) || !*s || strpbrk(s, "xX"))
        return 0;
    *out = strtod(s, &end);
    return !*end && isfinite(*out);
}

/* Characters that move the cursor, start terminal sequences or reorder text. */
static int is_harmful(const unsigned char *p, size_t n) {
    if (n == 1)
        return *p < 0x20 || *p == 0x7f;
    if (n == 2)
        return (p[0] == 0xC2 && p[1] < 0xA0) || (p[0] == 0xD8 && p[1] == 0x9C); /* C1, U+061C */
    if (n == 3 && p[0] == 0xE2)
        return (p[1] == 0x80 && ((p[2] >= 0x8E && p[2] <= 0x8F) || (p[2] >= 0xA8 && p[2] <= 0xAE))) ||
               (p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9); /* U+200E-F, 2028-2E, 2066-69 */
    return 0;
}

void moec_cli_print_text(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n;) {
        size_t k = moec_utf8_length(p + i, n - i);
        if (k && !is_harmful(p + i, k)) {
            fwrite(p + i, 1, k, stdout);
        } else {
            k = k ? k : 1;
            for (size_t b = 0; b < k; b++) {
                if (p[i + b] == '\n')
                    printf("\\n");
                else
                    printf("\\x%02X", p[i + b]);
            }
        }
        i += k;
    }
}

/* ---- help ---- */

/* All commands, or one. */
static void print_help(const moec_cli *c, const struct Command *only) {
    printf("usage: %s %s%s [options]\n\n", c->name, only ? only->name : "COMMAND", only ? only->usage : "");
    for (int i = 0; i < COMMANDS; i++)
        if (only ? only == &commands[i] : commands[i].run && (!commands[i].seq2seq || c->program->seq2seq))
            printf("  %s%-*s %s\n", commands[i].name, 18 - (int)strlen(commands[i].name), commands[i].usage,
                   commands[i].help);
    printf(only ? "\noptions:\n" : "\noptions (and the commands that take them):\n");
    for (int i = 0; i < OPTIONS; i++) {
        char left[64];
        if (only && !(options[i].commands & only->bit))
            continue;
        snprintf(left, sizeof left, "%s%s%s", options[i].name, options[i].meta ? " " : "",
                 options[i].meta ? options[i].meta : "");
        printf("  %-18s %s%s", left, strlen(left) > 18 ? "\n                     " : "", options[i].help);
        for (int k = 0, listed = 0; k < COMMANDS && !only && options[i].commands != ALL; k++)
            if ((options[i].commands & commands[k].bit) && commands[k].run)
                printf("%s%s", listed++ ? ", " : " [", commands[k].name);
        printf("%s\n", !only && options[i].commands != ALL ? "]" : "");
    }
    printf("\nexit status: 0 done, 1 the input is at fault, 2 usage, 70 a defect of moec\n");
}

/* ---- parsing ---- */

static const struct Option *find_option(const char *arg, size_t n) {
    for (int i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == n && !memcmp(options[i].name, arg, n))
            return &options[i];
    return NULL;
}

/* The number of a word among those of a list that | separates; -1: none of them. */
static int find_word(const char *list, const char *word) {
    for (int k = 0;; k++) {
        size_t n = strcspn(list, "|");
        if (n == strlen(word) && !memcmp(list, word, n))
            return k;
        if (!list[n])
            return -1;
        list += n + 1;
    }
}

static int store_word(moec_cli *c, const struct Option *o, const char *value) {
    char shown[MOEC_SHOW];
    int k = find_word(o->meta, value);
    if (k < 0)
        return moec_cli_usage(c, "%s is '%s', not one of %s", o->name, moec_show_c(shown, value), o->meta);
    *(unsigned *)(void *)((char *)&c->o + o->at) = (unsigned)k;
    return EXIT_DONE;
}

static int store_real(moec_cli *c, const struct Option *o, const char *value) {
    char shown[MOEC_SHOW];
    double v;
    if (!moec_cli_real(value, &v))
        return moec_cli_usage(c, "%s needs a number, not '%s'", o->name, moec_show_c(shown, value));
    if (v < (double)o->lo || v >= (double)o->hi)
        return moec_cli_usage(c, "%s is %g: it has to be at least %lld and below %g", o->name, v,
                              (long long)o->lo, (double)o->hi);
    *(double *)(void *)((char *)&c->o + o->at) = v;
    return EXIT_DONE;
}

static int store(moec_cli *c, const struct Option *o, const char *value) {
    char *at = (char *)&c->o + o->at;
    if (o->kind == OPTION_FLAG) {
        *(int *)(void *)at = 1;
    } else if (o->kind == OPTION_STRING) {
        *(const char **)(void *)at = value;
    } else if (o->kind == OPTION_LIST) {
        moec_strings *list = (moec_strings *)(void *)at;
        list->item[list->count++] = value;
    } else if (o->kind == OPTION_REAL) {
        return store_real(c, o, value);
    } else if (o->kind == OPTION_WORD) {
        return store_word(c, o, value);
    } else {
        int64_t v;
        char shown[MOEC_SHOW];
        if (!moec_cli_integer(value, &v))
            return moec_cli_usage(c, "%s needs an integer, not '%s'", o->name, moec_show_c(shown, value));
        if (v < o->lo || v > o->hi)
            return moec_cli_usage(c, "%s is %lld: the least is %lld, the most %lld", o->name, (long long)v,
                                  (long long)o->lo, (long long)o->hi);
        *(int64_t *)(void *)at = v;
    }
    return EXIT_DONE;
}

/* given: the options met; they may stand before the command, so what it takes is checked later. */
static int parse(moec_cli *c, const struct Command **command, unsigned char *given, int argc, char **argv) {
    char shown[MOEC_SHOW];
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (a[0] != '-' || !a[1]) {
            for (int k = 0; k < COMMANDS && !*command; k++)
                if (!strcmp(commands[k].name, a))
                    *command = &commands[k], a = NULL;
            if (a && !*command)
                return moec_cli_usage(c, "unknown command '%s'", moec_show_c(shown, a));
            if (!(*command)->run)
                return moec_cli_error(c, NULL, 0,
                                      "the program was compiled without training: compile it again with --train");
            if (a)
                c->o.positional.item[c->o.positional.count++] = a;
            continue;
        }
        const char *equals = strchr(a, '=');
        const struct Option *o = find_option(!strcmp(a, "-h") ? "--help" : a, !strcmp(a, "-h") ? 6
                                                                              : equals ? (size_t)(equals - a)
                                                                                       : strlen(a));
        if (!o || (o->kind == OPTION_FLAG && equals))
            return moec_cli_usage(c, "unknown option '%s'", moec_show_c(shown, a));
        const char *value = equals ? equals + 1 : NULL;
        if (o->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc)
                return moec_cli_usage(c, "%s needs a value: %s", o->name, o->meta);
            value = argv[++i];
        }
        int code = store(c, o, value);
        if (code)
            return code;
        given[o - options] = 1;
    }
    return EXIT_DONE;
}

/* ---- opening ---- */

/* PATH of the executable + suffix, in memory to be freed. /proc tells it even when argv[0] was found in PATH.
 */
static char *beside(const char *argv0, const char *suffix) {
    enum { ROOM = 4096 };
    char *p = moec_mem_new(ROOM + 64, 1);
    if (!p)
        return NULL;
    ssize_t n = readlink("/proc/self/exe", p, ROOM);
    if (n <= 0 || n == ROOM) {
        n = (ssize_t)strlen(argv0);
        if (n >= ROOM) {
            moec_mem_free(p);
            return NULL;
        }
        memcpy(p, argv0, (size_t)n);
    }
    memcpy(p + n, suffix, strlen(suffix) + 1);
    return p;
}

/* --adapter, each in the slot of its place. */
static moec_status open_instance(moec_cli *c, const char *weights) {
    const moec_strings *adapter = &c->o.adapter;
    moec_sink sink = moec_cli_sink(c);
    moec_options o = {.weights = weights,
                      .adapter = adapter->count ? adapter->item[0] : NULL,
                      .threads = (int)c->o.threads,
                      .message = sink.p,
                      .message_room = sink.room,
                      .adapters = (int)adapter->count,
                      .map = c->o.map,
                      .check = c->o.check};
    if (c->o.map && weights)
        moec_cli_guard(c, weights);
    moec_status s = moec_open(c->program, &o, &c->instance);
    for (size_t i = 1; i < adapter->count && !s; i++)
        s = moec_load_adapter_slot(c->instance, (int)i, adapter->item[i], sink.p, sink.room);
    return s;
}

int moec_cli_open(moec_cli *c) {
    const moec_program *p = c->program;
    char *near = NULL;
    if (!c->o.weights && !p->embedded && p->weights_bytes && !(near = beside(c->self, ".weights")))
        return moec_cli_no_memory(c);
    moec_status s = open_instance(c, c->o.weights ? c->o.weights : near);
    if (s == MOEC_E_OPEN && near && strstr(c->message, ".weights")) {
        size_t n = strlen(c->message);
        snprintf(c->message + n, sizeof c->message - n, "; --weights names another place");
    }
    moec_mem_free(near);
    return s ? moec_cli_status(c, s) : moec_cli_profile_start(c);
}

int moec_cli_open_text(moec_cli *c) {
    if (c->text)
        return EXIT_DONE;
    if (!c->tokenizer)
        return moec_cli_error(c, NULL, 0,
                              "this executable was built without a tokenizer: give it token ids, or compile "
                              "with spiece.model beside the model");
    const moec_tokenizer *t = c->tokenizer;
    const unsigned char *bytes = t->bytes;
    unsigned char *loaded = NULL;
    size_t size = t->size;
    char *near = NULL;
    const char *name = t->name ? t->name : "spiece.model";
    moec_sink sink = moec_cli_sink(c);
    moec_status s = MOEC_OK;
    if (c->o.tokenizer || !bytes) {
        name = c->o.tokenizer ? c->o.tokenizer : (near = beside(c->self, ".spiece.model"));
        if (!name)
            return moec_cli_no_memory(c);
        s = moec_file_load(name, MOEC_SPIECE_LIMIT, &loaded, &size, sink);
        bytes = loaded;
    }
    if (!s) {
        c->text = t->api->open(bytes, size, name, c->program->seq2seq->vocab, c->message, sizeof c->message);
        s = c->text ? MOEC_OK : MOEC_E_FORMAT;
    }
    moec_mem_free(loaded);
    moec_mem_free(near);
    return moec_cli_status(c, s);
}

/* ---- entry ---- */

static int dispatch(moec_cli *c, int argc, char **argv) {
    const struct Command *command = NULL;
    unsigned char given[OPTIONS] = {0};
    int code = parse(c, &command, given, argc, argv);
    if (code)
        return code;
    if (c->o.version) {
        printf("%s (moec, runtime ABI %d)\n", c->name, MOEC_ABI);
        return EXIT_DONE;
    }
    if (c->o.help) {
        print_help(c, command);
        return EXIT_DONE;
    }
    if (!command && argc > 1 && c->program->seq2seq)
        command = &commands[0]; /* generate */
    if (!command)
        return moec_cli_usage(c, "no command was given");
    for (int i = 0; i < OPTIONS; i++)
        if (given[i] && !(options[i].commands & command->bit))
            return moec_cli_usage(c, "%s takes no %s", command->name, options[i].name);
    if (c->o.adapter.count > 1 && !(command->bit & TEXTS))
        return moec_cli_usage(c, "%s takes one --adapter", command->name);
    int positional = (int)c->o.positional.count;
    if (positional < command->least || positional > command->most)
        return moec_cli_usage(c, "usage: %s %s%s [options]", c->name, command->name, command->usage);
    if (command->seq2seq && !c->program->seq2seq)
        return moec_cli_error(c, NULL, 0,
                              "%s needs an encoder and a decoder, this model is a plain graph: use run",
                              command->name);
    code = moec_cli_profile_check(c);
    return code ? code : moec_cli_profile_end(c, command->run(c));
}

static void set_name(moec_cli *c, const char *path) {
    const char *slash = strrchr(path, '/');
    c->name = moec_show_c(c->shown, slash ? slash + 1 : path);
}

/* Who asks for a variant gets that one. */
static int check_variant(moec_cli *c) {
    const char *wanted = getenv("MOEC_VARIANT"), *has = c->program->variant;
    char shown[MOEC_SHOW];
    if (!wanted || !*wanted || !has || !*has || !strcmp(wanted, has))
        return EXIT_DONE;
    return moec_cli_error(c, NULL, 0, "MOEC_VARIANT: there is no '%s' that this CPU runs; without it '%s' runs",
                          moec_show_c(shown, wanted), has);
}

int moec_main(const moec_program *p, const moec_tokenizer *tokenizer, int argc, char **argv) {
    moec_cli c = {.program = p,
                  .tokenizer = tokenizer,
                  .o = {.eos = -1, .accumulate = 1, .save_every = 100, .keep = 2, .log_every = 10}};
#ifndef MOEC_NO_TRAINING
    moec_train_defaults(&c.o.train);
#endif
    c.self = argc > 0 ? argv[0] : "model";
    set_name(&c, c.self);
    size_t room = (size_t)argc + 1; /* each list may take all arguments */
    moec_strings *list[] = {&c.o.ids,  &c.o.targets, &c.o.text,      &c.o.in,
                            &c.o.data, &c.o.eval,    &c.o.adapter, &c.o.positional};
    enum { LISTS = sizeof list / sizeof *list };
    const char **slots = moec_mem_new(LISTS * room, sizeof *slots);
    if (!slots)
        return moec_cli_no_memory(&c);
    for (size_t i = 0; i < LISTS; i++)
        list[i]->item = slots + i * room;
    int code = check_variant(&c);
    if (!code)
        code = dispatch(&c, argc, argv);
    if (c.text)
        c.tokenizer->api->close(c.text);
    moec_close(c.instance);
    moec_mem_free(slots);
    if ((fflush(stdout) || ferror(stdout)) && code == EXIT_DONE)
        code = moec_cli_error(&c, NULL, 0, "standard output cannot be written: %s", strerror(errno));
    return code;
}
