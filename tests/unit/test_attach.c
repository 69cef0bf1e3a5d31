/* attach against the forward rules written out as loops: every method, site and router option, one site at a
 * time, on a small layer given as text. */
#include "compiler/adapter.h"
#include "compiler/pass.h"
#include "frontends/spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, S = 3, D_MODEL = 3, HEADS = 2, KV = 2, INNER = HEADS * KV, FF = 5, SENTENCE = 4, OUTPUTS = 6 };

static const char layer[] =
    "sym B = 1..8\nsym S = 1..8\n"
    "param @wq : f32[3,4] frozen = [0.1, -0.2, 0.3, 0.4, 0.5, -0.6, 0.7, 0.8, -0.9, 1, 0.11, 0.12]\n"
    "param @wk : f32[3,4] frozen = [0.3, 0.2, -0.3, 0.9, 0.7, -0.1, 0.2, 0.6, -0.5, 0.1, 0.4, -0.8]\n"
    "param @wv : f32[3,4] frozen = [-0.7, 0.6, 0.1, 0.2, 0.4, 0.9, -0.2, 0.5, 0.3, 0.8, -0.4, 0.6]\n"
    "param @wi : f32[3,5] frozen = [0.5, 0.1, -0.6, 0.8, 0.2, 0.7, -0.4, 0.3, 0.9, -0.1, 0.6, 0.2, -0.8, "
    "0.4, 0.1]\n"
    "param @wo : f32[5,3] frozen = [0.2, -0.3, 0.5, 0.6, 0.7, -0.8, 0.1, 0.9, 0.4, -0.2, 0.3, 0.8, -0.5, "
    "0.6, 0.7]\n"
    "func @encoder entry (%x : f32[B,S,3]) {\n"
    "  %q = matmul %x, @wq {site = \"encoder.0.self.q\"} : f32[B,S,4]\n"
    "  %k = matmul %x, @wk {site = \"encoder.0.self.k\"} : f32[B,S,4]\n"
    "  %v = matmul %x, @wv {site = \"encoder.0.self.v\"} : f32[B,S,4]\n"
    "  %a = attention %q, %k, %v {heads = 2} : f32[B,S,4]\n"
    "  %h = matmul %x, @wi {site = \"encoder.0.ffn.wi\"} : f32[B,S,5]\n"
    "  %g = gelu %h {site = \"encoder.0.ffn.act\"} : f32[B,S,5]\n"
    "  %y = matmul %g, @wo {site = \"encoder.0.ffn.wo\"} : f32[B,S,3]\n"
    "  return %q \"q\", %k \"k\", %v \"v\", %h \"wi\", %g \"act\", %y \"wo\", %a \"a\"\n"
    "}\n";

static const char *const output[OUTPUTS] = {"q", "k", "v", "wi", "act", "wo"};

typedef struct Case {
    const char *spec; /* after "moec_adapter": 1, */
    const char *site; /* output it changes */
} Case;

static const Case cases[] = {
    {"'method':'ia3'", "k"},
    {"'method':'ia3'", "act"},
    {"'method':'lora','rank':2", "q"},
    {"'method':'lora','rank':2,'alpha':3", "wi"},
    {"'method':'lora','rank':1,'alpha':1", "wo"},
    {"'method':'mov','experts':4", "k"},
    {"'method':'mov','experts':4", "v"},
    {"'method':'mov','experts':3", "act"},
    {"'method':'mov','experts':1", "k"},
    {"'method':'mov','experts':4,'router':{'input':'input'}", "k"},
    {"'method':'mov','experts':4,'router':{'input':'input','bias':true}", "act"},
    {"'method':'mov','experts':4,'router':{'input':'sentence','sentence_dim':4}", "k"},
    {"'method':'mov','experts':4,'router':{'input':'sentence','sentence_dim':4}", "act"},
    {"'method':'mov','experts':4,'router':{'bias':true,'temperature':0.5}", "v"},
    {"'method':'mov','experts':4,'router':{'top_k':2}", "k"},
    {"'method':'mov','experts':4,'router':{'top_k':2,'renormalise':'sum','temperature':2}", "k"},
    {"'method':'mov','experts':4,'router':{'top_k':1,'renormalise':'softmax'}", "act"},
    {"'method':'mov','experts':4,'router':{'top_k':4}", "act"},
    {"'method':'molora','experts':3,'rank':2", "q"},
    {"'method':'molora','experts':3,'rank':2,'alpha':5", "wi"},
    {"'method':'molora','experts':1,'rank':2", "wo"},
    {"'method':'molora','experts':3,'rank':1,'router':{'input':'input'}", "k"},
    {"'method':'molora','experts':3,'rank':2,'router':{'input':'sentence','sentence_dim':4}", "wo"},
    {"'method':'molora','experts':4,'rank':2,'router':{'top_k':2,'bias':true}", "v"},
    {"'method':'molora','experts':4,'rank':2,'router':{'top_k':3,'renormalise':'sum'}", "wo"},
};

/* ---- the rules ----------------------------------------------------------------------------------- */

typedef struct Rule {
    const AdapterRule *r;
    const float *t[TR_COUNT];
    int64_t in, out, heads; /* heads 0: not a head site */
} Rule;

static void weights_of(const Rule *R, const double *u, int64_t width, double *p) {
    const RouterOptions *o = &R->r->router;
    int64_t E = R->r->experts;
    double logit[16], top = -1e300, sum = 0;
    bool keep[16];
    for (int64_t e = 0; e < E; e++) {
        logit[e] = o->bias ? (double)R->t[TR_ROUTER_BIAS][e] : 0;
        for (int64_t i = 0; i < width; i++)
            logit[e] += u[i] * (double)R->t[TR_ROUTER][i * E + e];
    }
    for (int64_t e = 0; e < E; e++) {
        int64_t better = 0;
        for (int64_t k = 0; k < E; k++)
            better += logit[k] > logit[e] || (k < e && logit[k] == logit[e]);
        keep[e] = o->top_k == 0 || better < o->top_k;
    }
    for (int64_t e = 0; e < E; e++) {
        logit[e] /= o->temperature;
        if (keep[e] || !o->renormalise)
            top = fmax(top, logit[e]);
    }
    for (int64_t e = 0; e < E; e++) {
        p[e] = keep[e] || !o->renormalise ? exp(logit[e] - top) : 0;
        sum += p[e];
    }
    for (int64_t e = 0; e < E; e++)
        p[e] = keep[e] ? p[e] / sum : 0;
}

static void rule_apply(const Rule *R, const double *u, const double *sentence, double *y) {
    const AdapterRule *r = R->r;
    int64_t E = r->experts, rank = r->rank, kv = R->heads > 0 ? R->out / R->heads : R->out;
    double p[16], before[16];
    memcpy(before, y, sizeof *y * (size_t)R->out);
    bool sent = r->router.input == RI_SENTENCE;
    switch (r->method) {
    case AM_IA3:
        for (int64_t j = 0; j < R->out; j++)
            y[j] *= (double)R->t[TR_SCALE][j];
        break;
    case AM_MOV:
        for (int64_t j = 0; j < R->out; j++) {
            int64_t h = j / kv, c = j % kv;
            double s = 0;
            if (sent)
                weights_of(R, sentence, SENTENCE, p);
            else if (r->router.input == RI_INPUT)
                weights_of(R, u, D_MODEL, p);
            else
                weights_of(R, before + h * kv, kv, p);
            for (int64_t e = 0; e < E; e++)
                s += p[e] * (double)R->t[TR_SCALE][(h * E + e) * kv + c];
            y[j] *= s;
        }
        break;
    case AM_LORA:
    case AM_MOLORA:
        if (r->method == AM_LORA)
            E = 1, p[0] = 1;
        else
            weights_of(R, sent ? sentence : u, sent ? SENTENCE : R->in, p);
        for (int64_t e = 0; e < E; e++)
            for (int64_t k = 0; k < rank; k++) {
                double z = 0;
                for (int64_t i = 0; i < R->in; i++)
                    z += u[i] * (double)R->t[TR_LORA_A][(e * R->in + i) * rank + k];
                for (int64_t j = 0; j < R->out; j++)
                    y[j] += p[e] * z * (double)R->t[TR_LORA_B][(e * rank + k) * R->out + j] * r->alpha /
                            (double)rank;
            }
        break;
    case AM_FULL:
    case AM_COUNT:
        break;
    }
}

/* ---- running ------------------------------------------------------------------------------------- */

static unsigned state = 1;

static float draw(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static void eval(Module *m, const float *x, const float *sentence, Tensor *out, Arena *a, Diag *d) {
    Func *f = module_find(m, "encoder");
    int64_t syms[8] = {0};
    Tensor in[2] = {{DT_F32, 3, {B, S, D_MODEL}, (void *)(uintptr_t)x},
                    {DT_F32, 2, {B, SENTENCE}, (void *)(uintptr_t)sentence}};
    assert_true(func_bind_dims(m, f, in, syms, d));
    assert_true(func_eval(m, f->id, syms, in, out, a, d));
}

static AdapterSpec *spec_with_values(const Case *c, Arena *a, Diag *d, const ModelSite *site) {
    char *text = arena_printf(a, "{'moec_adapter':1,%s,'sites':[{'match':'*.%s'}]}", c->spec, c->site);
    for (char *p = text; *p != 0; p++)
        *p = *p == '\'' ? '"' : *p;
    AdapterSpec *s = spec_parse(a, "spec.json", str_c(text), d);
    assert_non_null(s);
    AdapterSite at = {site, &s->rule[0]};
    SiteTensor t[TR_COUNT];
    uint32_t n = adapter_site_tensors(&at, t);
    s->tensor = arena_array(a, n, sizeof *s->tensor);
    s->n_tensors = n;
    s->loaded = true;
    s->tensor_file = "values";
    for (uint32_t i = 0; i < n; i++) {
        float *data = arena_array(a, (size_t)t[i].count, sizeof *data);
        for (int64_t k = 0; k < t[i].count; k++)
            data[k] = draw();
        s->tensor[i] = (AdapterTensor){
            .name = str_c(arena_printf(a, "%s.%s", site->name.p, adapter_tensor_suffix(t[i].role))),
            .dtype = str_c("F32"),
            .kind = FK_F32,
            .rank = t[i].rank,
            .data = data};
        memcpy(s->tensor[i].dim, t[i].dim, sizeof t[i].dim);
    }
    return s;
}

static void case_run(const Case *c) {
    Arena *a = arena_new();
    Diag *d = diag_new();
    int which = 0;
    while (strcmp(output[which], c->site) != 0)
        which++;
    bool attention = which < 3;
    ModelSite site = {str_c(arena_printf(a, "encoder.0.%s.%s", attention ? "self" : "ffn", c->site)), SR_Q,
                      which == 5 ? FF : D_MODEL,
                      attention    ? INNER
                      : which == 5 ? D_MODEL
                                   : FF,
                      attention ? HEADS : 0};
    assert_true(site_role_parse(str_c(c->site), &site.role));
    AdapterSpec *spec = spec_with_values(c, a, d, &site);
    Module *base = module_parse(d, "layer", layer, sizeof layer - 1);
    Module *m = module_parse(d, "layer", layer, sizeof layer - 1);
    if (base == NULL || m == NULL)
        diag_flush(d);
    assert_non_null(base);
    PassOptions o = {.adapter = spec};
    bool attached = pass_attach(m, &o, d);
    if (!attached)
        diag_flush(d);
    assert_true(attached);
    assert_true(module_verify(m, d, true));

    float x[B * S * D_MODEL], sentence[B * SENTENCE];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = draw();
    for (size_t i = 0; i < sizeof sentence / sizeof *sentence; i++)
        sentence[i] = draw();
    Tensor want[OUTPUTS + 1], have[OUTPUTS + 1];
    eval(base, x, sentence, want, a, d);
    eval(m, x, sentence, have, a, d);

    Rule R = {.r = &spec->rule[0], .in = site.d_in, .out = site.d_out, .heads = site.heads};
    SiteTensor t[TR_COUNT];
    AdapterSite at = {&site, &spec->rule[0]};
    uint32_t n = adapter_site_tensors(&at, t);
    for (uint32_t i = 0; i < n; i++)
        R.t[t[i].role] = spec->tensor[i].data;
    for (int64_t row = 0; row < B * S; row++) {
        double u[16], y[16], vector[SENTENCE];
        for (int64_t i = 0; i < site.d_in; i++)
            u[i] = which == 5 ? tensor_get_f64(&want[4], row * FF + i) : (double)x[row * D_MODEL + i];
        for (int64_t j = 0; j < site.d_out; j++)
            y[j] = tensor_get_f64(&want[which], row * site.d_out + j);
        for (int i = 0; i < SENTENCE; i++)
            vector[i] = (double)sentence[row / S * SENTENCE + i];
        rule_apply(&R, u, vector, y);
        for (int64_t j = 0; j < site.d_out; j++) {
            double got = tensor_get_f64(&have[which], row * site.d_out + j);
            if (!(fabs(got - y[j]) <= 2e-6 * (1 + fabs(y[j]))))
                fail_msg("%s on %s: row %lld column %lld: %.9g, expected %.9g", c->spec, c->site,
                         (long long)row, (long long)j, got, y[j]);
        }
    }
    assert_int_equal(diag_errors(d), 0);
    module_free(m);
    module_free(base);
    diag_free(d);
    arena_free(a);
}

static void test_rules(void **unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        case_run(&cases[i]);
}

/* Freshly initialised, soft routing: the identity. */
static void test_identity(void **unused) {
    (void)unused;
    static const char *const specs[] = {
        "{\"moec_adapter\":1,\"method\":\"ia3\"}", "{\"moec_adapter\":1,\"method\":\"mov\",\"experts\":3}",
        "{\"moec_adapter\":1,\"method\":\"lora\",\"rank\":2}",
        "{\"moec_adapter\":1,\"method\":\"molora\",\"experts\":3,\"rank\":2}"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        Arena *a = arena_new();
        Diag *d = diag_new();
        Module *base = module_parse(d, "layer", layer, sizeof layer - 1);
        Module *m = module_parse(d, "layer", layer, sizeof layer - 1);
        PassOptions o = {.adapter = spec_parse(a, "spec", str_c(specs[i]), d), .seed = 7};
        assert_non_null(o.adapter);
        assert_true(pass_attach(m, &o, d));
        float x[B * S * D_MODEL];
        for (size_t k = 0; k < sizeof x / sizeof *x; k++)
            x[k] = draw();
        Tensor want[OUTPUTS + 1], have[OUTPUTS + 1];
        eval(base, x, NULL, want, a, d);
        eval(m, x, NULL, have, a, d);
        for (int k = 0; k <= OUTPUTS; k++) {
            int64_t n;
            assert_true(tensor_count(&want[k], &n));
            for (int64_t j = 0; j < n; j++)
                assert_true(fabs(tensor_get_f64(&want[k], j) - tensor_get_f64(&have[k], j)) < 1e-6);
        }
        module_free(m);
        module_free(base);
        diag_free(d);
        arena_free(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules), cmocka_unit_test(test_identity)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
