/* Batches of graphs, each in processes of their own: a crash costs the graph it is of, not the run.
 *
 *   look     every graph alone: verified, through its text and back, through all passes, to code (none is compiled). What has
 *            no lowering is refused here
 *   compare  those left, one module: interpreter before the passes, interpreter after them, every backend */
#include "graphs.h"

#include "compiler/paranoid.h"
#include "compiler/remark.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 300, STEP_SECONDS = 60 };

typedef struct Batch {
    const Settings *s;
    uint32_t first, n;
    Result *result;     /* of the batch's graphs; shared with children */
    uint32_t *at;       /* the graph that is being worked on; shared */
    BuildOptions build; /* with the folder of this worker */
    MakeGraph *make;    /* NULL: graphs by their seeds */
    void *ctx;
} Batch;

Op focus_of(const Settings *s, uint32_t index) {
    if (s->focus != OP_COUNT) return s->focus;
    Op op = (Op)((s->seed + index) % OP_COUNT);
    return op_generated(op) ? op : OP_COUNT;
}

static void make(const Batch *b, uint32_t i, Graph *g, Module *m) {
    if (b->make) b->make(b->ctx, g, m);
    else graph_make(g, m, b->s->seed + b->first + i, focus_of(b->s, b->first + i));
}

static bool passes(const Batch *b, Module *m, Diag *d) {
    PassOptions o = {.plain = true, .opt_level = 2};
    PassRun run = {.options = &o, .bad_ir_dir = b->build.dir};
    return passes_run(m, &run, d);
}

static void conclude(Batch *b, uint32_t i, Verdict v, const char *why) {
    b->result[i].verdict = v;
    snprintf(b->result[i].why, sizeof b->result[i].why, "%s", why);
}

/* ---- what was said ---- */

/* The last lines that went to stderr, which is a file, as one. */
static void said(char *out, size_t room) {
    fflush(stderr);
    ssize_t n = pread(2, out, room - 1, 0);
    out[n > 0 ? n : 0] = 0;
    for (char *c = out; *c; c++)
        if (*c == '\n') *c = c[1] ? '|' : 0;
}

static void forget_said(void) {
    fflush(stderr);
    if (ftruncate(2, 0) == 0) lseek(2, 0, SEEK_SET);
}

static void conclude_said(Batch *b, uint32_t i, Verdict v, Diag *d) {
    char text[300];
    diag_flush(d);
    said(text, sizeof text);
    conclude(b, i, v, text);
}

/* ---- look ---- */

static uint32_t occurrences(const Text *t, const char *what) {
    uint32_t n = 0;
    for (const char *p = t->p; p && (p = strstr(p, what)); p++) n++;
    return n;
}

static Products count_products(const Module *m) {
    Products p = {0};
    Text told = {0};
    for (uint32_t i = 0; i < m->n_funcs; i++)
        for (uint32_t k = 0; m->func[i] && k < m->func[i]->n_nodes; k++) {
            const Node *n = &m->func[i]->node[k], *w = n->op == OP_matmul ? value_node(m->func[i], n->in[1]) : NULL;
            p.all += n->op == OP_matmul;
            p.panels += w && w->op == OP_unpack;
        }
    remarks_json(m->remarks, &told);
    text_add(&told, "", 1);
    p.streams = occurrences(&told, "\"name\":\"streamed\"");
    text_free(&told);
    return p;
}

static void look(Batch *b, uint32_t i) {
    Module *m = module_new();
    Graph g;
    Diag *d = diag_new();
    Remarks *remarks = remarks_new();
    symbols_declare(m);
    make(b, i, &g, m);
    m->remarks = remarks;
    Verdict v = V_PENDING;
    if (!module_verify(m, d, true) || !roundtrip_check(m, d)) v = V_FAILED;
    else if (!passes(b, m, d)) v = V_REFUSED;
    if (v == V_PENDING && b->s->n_backends && !lowering_check(m, d)) v = V_REFUSED;
    if (v != V_PENDING) conclude_said(b, i, v, d);
    else b->result[i].products = count_products(m);
    diag_free(d);
    graph_free(&g);
    remarks_free(remarks);
    module_free(m);
}

static void look_all(Batch *b) {
    for (; *b->at < b->n; ++*b->at) {
        forget_said();
        alarm(STEP_SECONDS);
        if (b->result[*b->at].verdict == V_PENDING) look(b, *b->at);
    }
}

/* ---- compare ---- */

typedef struct Compared {
    Module *plain, *done; /* before and after the passes */
    Graph *of_plain, *of_done;
    Library *library[4];
    Arena *a;
} Compared;

/* Results of one form of the graph against what is expected. */
static bool agree(const Reference *r, const Expected *e, const Tensor *out, const char *who, int binding, char *why, size_t room) {
    char what[300];
    for (uint32_t i = 0; i < r->f->n_outputs; i++)
        if (!reference_compare(r, e, i, &out[i], what, sizeof what)) {
            snprintf(why, room, "%s, binding %d: %s", who, binding, what);
            return false;
        }
    return true;
}

static bool compare_graph(Batch *b, Compared *c, uint32_t i, char *why, size_t room) {
    Arena *a = arena_new();
    Diag *d = diag_new();
    Reference r;
    bool ok = reference_make(&c->of_plain[i], &r, a, d);
    const Graph *g = &c->of_plain[i];
    for (int binding = g->syms ? g->binding : 0; ok && binding < (g->syms ? g->binding + 1 : BINDINGS); binding++) {
        Expected e;
        const Func *f = module_func(c->done, c->of_done[i].id);
        Tensor *out = arena_array(a, f->n_outputs + 1u, sizeof *out);
        *why = 0;
        ok = reference_eval(&c->of_plain[i], &r, binding, &e, a, d);
        int64_t *syms = arena_array(a, dim_sym_count(c->done->dims) + 1, sizeof *syms);
        if (ok) symbols_bind(&c->of_done[i], c->done, binding, syms);
        ok = ok && func_eval(c->done, f->id, syms, e.in, out, a, d) && agree(&r, &e, out, "interpreter after the passes", binding, why, room);
        for (uint32_t k = 0; ok && k < b->s->n_backends; k++) {
            char what[200] = "";
            ok = library_run(c->library[k], c->done, f->name, syms, e.in, out, a, what, sizeof what);
            if (!ok) snprintf(why, room, "%s, binding %d: %s", b->s->backend[k], binding, what);
            ok = ok && agree(&r, &e, out, b->s->backend[k], binding, why, room);
        }
    }
    if (!ok && !*why) {
        diag_flush(d);
        said(why, room);
    }
    diag_free(d);
    arena_free(a);
    return ok;
}

static bool compare_open(Batch *b, Compared *c, Diag *d) {
    *c = (Compared){.plain = module_new(), .done = module_new(), .a = arena_new()};
    c->of_plain = arena_array(c->a, b->n, sizeof *c->of_plain);
    c->of_done = arena_array(c->a, b->n, sizeof *c->of_done);
    symbols_declare(c->plain);
    symbols_declare(c->done);
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->result[i].verdict != V_PENDING) continue;
        make(b, i, &c->of_plain[i], c->plain);
        make(b, i, &c->of_done[i], c->done);
    }
    bool ok = passes(b, c->done, d);
    for (uint32_t k = 0; ok && k < b->s->n_backends; k++) {
        BuildOptions o = b->build;
        o.dir = arena_printf(c->a, "%s/%s", b->build.dir, b->s->backend[k]);
        mkdir(o.dir, 0777);
        ok = (c->library[k] = backend_load(b->s->backend[k], c->done, &o, c->a, d)) != NULL;
    }
    return ok;
}

/* Exit code 2: the batch as a whole cannot be built. */
static void compare_all(Batch *b) {
    Compared c;
    Diag *d = diag_new();
    alarm(SECONDS);
    forget_said();
    if (!compare_open(b, &c, d)) {
        for (uint32_t i = 0; b->n == 1 && i < 1; i++) conclude_said(b, 0, V_FAILED, d);
        _exit(2);
    }
    for (uint32_t i = *b->at; i < b->n; i++) {
        char why[400];
        if (b->result[i].verdict != V_PENDING) continue;
        *b->at = i;
        forget_said();
        alarm(STEP_SECONDS);
        bool ok = compare_graph(b, &c, i, why, sizeof why);
        conclude(b, i, ok ? V_OK : V_FAILED, ok ? "" : why);
    }
    *b->at = b->n;
    for (uint32_t k = 0; k < b->s->n_backends; k++) library_close(c.library[k]);
}

/* ---- processes ---- */

static void *shared(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("random_graphs");
        exit(1);
    }
    return p;
}

/* Runs `work` in a child until it has gone through the batch; a graph at which a child dies has failed. False: the batch
 * cannot be built as a whole. */
static bool in_children(Batch *b, void (*work)(Batch *b)) {
    const char *log = b->build.dir;
    char path[300];
    snprintf(path, sizeof path, "%s/said", log);
    for (*b->at = 0; *b->at < b->n;) {
        int status;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
            if (fd >= 0) dup2(fd, 2);
            work(b);
            _exit(0);
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 2) return false;
        if (*b->at >= b->n) break;
        char text[300] = "", why[400];
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        text[n > 0 ? n : 0] = 0;
        for (char *c = text; *c; c++)
            if (*c == '\n') *c = '|';
        if (WIFSIGNALED(status)) snprintf(why, sizeof why, "crashes: %s %s", strsignal(WTERMSIG(status)), text);
        else snprintf(why, sizeof why, "exit code %d: %s", WEXITSTATUS(status), text);
        conclude(b, (*b->at)++, V_FAILED, why);
    }
    return true;
}

static void compare_batch(Batch b) {
    uint32_t pending = 0;
    for (uint32_t i = 0; i < b.n; i++) pending += b.result[i].verdict == V_PENDING;
    if (!pending || in_children(&b, compare_all)) return;
    if (b.n == 1) {
        if (b.result[0].verdict == V_PENDING) conclude(&b, 0, V_FAILED, "it cannot be built");
        return;
    }
    Batch half = b;
    half.n = b.n / 2;
    compare_batch(half);
    half.first += half.n;
    half.result += half.n;
    half.n = b.n - half.n;
    compare_batch(half);
}

static void check_batch(Batch b) {
    in_children(&b, look_all);
    compare_batch(b);
}

static void worker(const Settings *s, Result *result, uint32_t number) {
    Batch b = {.s = s, .at = shared(sizeof *b.at), .build = s->build};
    char dir[300];
    snprintf(dir, sizeof dir, "%s/job%u", s->build.dir, number);
    mkdir(dir, 0777);
    b.build.dir = dir;
    for (uint32_t first = number * s->batch; first < s->count; first += s->jobs * s->batch) {
        b.first = first;
        b.n = s->count - first < s->batch ? s->count - first : s->batch;
        b.result = result + first;
        check_batch(b);
    }
}

void check_all(const Settings *s, Result *result) {
    fflush(NULL);
    for (uint32_t i = 0; i < s->jobs; i++)
        if (fork() == 0) {
            worker(s, result, i);
            _exit(0);
        }
    while (wait(NULL) > 0 || errno == EINTR) {}
}

Verdict check_one(const Settings *s, MakeGraph *make_graph, void *ctx, char *why, size_t room) {
    static Result *result;
    static uint32_t *at;
    if (!result) result = shared(sizeof *result), at = shared(sizeof *at);
    memset(result, 0, sizeof *result);
    Batch b = {.s = s, .n = 1, .result = result, .at = at, .build = s->build, .make = make_graph, .ctx = ctx};
    check_batch(b);
    snprintf(why, room, "%s", result->why);
    return (Verdict)result->verdict;
}
