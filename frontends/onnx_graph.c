/* Graphs: scopes of names, initializers, inputs, outputs, and the branches of `If`.
 *
 * A name is defined once in the scopes one can see. Constants and parameters are bindings, not values: each
 * function that uses one makes its own node or parameter use. Any other outer value that a branch uses becomes
 * an input of the branch's function, and the same operand is given to both branches. */
#include "onnx_impl.h"

#include <inttypes.h>
#include <string.h>

/* ---- scopes -------------------------------------------------------------------------------------------- */

const Binding *scope_find(const Scope *scope, Str name)
{
    uint32_t i;
    for (; scope != NULL; scope = scope->outer)
        if (namemap_find(&scope->names, name, &i))
            return &scope->bind.item[i];
    return NULL;
}

bool scope_define(Scope *scope, Binding b)
{
    if (scope->bind.count >= UINT32_MAX - 1 || scope_find(scope, b.name) != NULL)
        return false;
    namemap_add(&scope->names, b.name, (uint32_t)scope->bind.count);
    vec_push(&scope->bind, b);
    return true;
}

static void scope_free(Scope *s)
{
    namemap_free(&s->names);
    vec_free(&s->bind);
}

static ValueId constant_value(Import *im, Func *f, const Binding *b)
{
    if (b->kind == BIND_PARAM)
        return func_param(im->m, f, b->param);
    Attr at = attr_t(AT_value, b->tensor);
    ValueId v = func_node(im->m, f, OP_const, NULL, 0, &at, 1, b->name);
    f->value[v].name = b->name;
    return v;
}

bool scope_value(Import *im, Scope *scope, Str name, ValueId *out, bool *poisoned)
{
    *out = NONE;
    const Binding *found = scope_find(scope, name);
    if (found == NULL)
        return false;
    if (found->kind == BIND_POISON) {
        *poisoned = true;
        return true;
    }
    uint32_t i;
    if (!namemap_find(&scope->names, name, &i)) {
        /* An outer constant; outer values a branch needs were made its inputs when its scope began. */
        if (found->kind == BIND_VALUE)
            return false;
        Binding here = *found;
        here.value = NONE;
        i = (uint32_t)scope->bind.count;
        namemap_add(&scope->names, here.name, i);
        vec_push(&scope->bind, here);
    }
    Binding *b = &scope->bind.item[i];
    if (b->value == NONE)
        b->value = constant_value(im, scope->f, b);
    *out = b->value;
    return true;
}

/* ---- initializers ------------------------------------------------------------------------------------------ */

/* Integers that may be shapes, indices or flags, and scalars of any type, are literals. */
static bool is_literal(const Tensor *t)
{
    int64_t n = 0;
    CHECK(tensor_count(t, &n));
    return n <= (dtype_is_float(t->dtype) ? 1 : ONNX_SMALL);
}

static bool sparse_refused(Import *im, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_sparse_initializer; i++) {
        const Onnx__TensorProto *v = g->sparse_initializer[i]->values;
        diag_error(im->d, DIAG_ONNX_FEATURE, im->file->path, "sparse initializer '%s' is not supported",
                   diag_show(im->d, str_c(v != NULL && v->name != NULL ? v->name : "")));
    }
    return g->n_sparse_initializer == 0;
}

static bool import_initializer(Import *im, Scope *scope, const Onnx__TensorProto *t, Str file)
{
    Module *m = im->m;
    Binding b = {.kind = BIND_CONST, .value = NONE, .name = onnx_str(m, t->name)};
    if (b.name.n == 0)
        return diag_error(im->d, DIAG_ONNX_NAME, im->file->path, "an initializer has no name");
    bool ok = onnx_tensor(im->file, t, m->arena, &b.tensor, im->d);
    if (ok && !is_literal(&b.tensor)) {
        b.kind = BIND_PARAM;
        b.param = onnx_param(m, im->file->owner, &b.tensor, b.name,
                             dtype_is_float(b.tensor.dtype) ? PK_FROZEN : PK_CONST, file);
    }
    if (ok && !scope_define(scope, b))
        ok = diag_error(im->d, DIAG_ONNX_NAME, im->file->path, "is the name of another value too");
    return ok;
}

static bool import_initializers(Import *im, Scope *scope, const Onnx__GraphProto *g)
{
    Str file = str_c(im->file->path);
    bool ok = true;
    for (size_t i = 0; i < g->n_initializer; i++) {
        const Onnx__TensorProto *t = g->initializer[i];
        diag_push(im->d, "initializer '%s'", diag_show(im->d, str_c(t->name != NULL ? t->name : "")));
        ok &= import_initializer(im, scope, t, file);
        diag_pop(im->d);
    }
    return ok;
}

/* ---- inputs and outputs ---------------------------------------------------------------------------------------- */

static bool input_dim(Import *im, const Onnx__TensorShapeProto__Dimension *dim, Str name, size_t axis, Dim *out)
{
    Module *m = im->m;
    if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE) {
        if (dim->dim_value < 0 || dim->dim_value >= MOEC_MAX_TENSOR)
            return diag_error(im->d, DIAG_ONNX_INTERFACE, im->file->path,
                              "extent %" PRId64 " is out of range", dim->dim_value);
        *out = dim_const(m->dims, dim->dim_value);
        return true;
    }
    if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && dim->dim_param[0] != 0) {
        Str s = onnx_str(m, dim->dim_param);
        *out = dim_sym(m->dims, s);
        return true;
    }
    *out = dim_sym(m->dims, str_c(arena_printf(m->arena, "%s.%zu", name.p, axis)));
    return true;
}

static bool tensor_type(Import *im, const Onnx__ValueInfoProto *v, const Onnx__TypeProto__Tensor **out, DType *dtype)
{
    const char *file = im->file->path;
    if (v->type == NULL || v->type->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET)
        return diag_error(im->d, DIAG_ONNX_INTERFACE, file, "has no type");
    if (v->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return diag_error(im->d, DIAG_ONNX_FEATURE, file,
                          "is not a tensor: sequences, maps, optionals and sparse tensors are not supported");
    const Onnx__TypeProto__Tensor *t = v->type->tensor_type;
    if (!onnx_dtype(t->elem_type, dtype))
        return diag_error(im->d, DIAG_ONNX_ELEMENT_TYPE, file, "element type %s (%d) is not supported",
                          onnx_dtype_name(t->elem_type), (int)t->elem_type);
    if (t->shape != NULL && t->shape->n_dim > MOEC_MAX_RANK)
        return diag_error(im->d, DIAG_LIMIT, file, "rank %zu is above the limit of %d", t->shape->n_dim,
                          MOEC_MAX_RANK);
    *out = t;
    return true;
}

static bool import_input(Import *im, Scope *scope, const Onnx__ValueInfoProto *v)
{
    Module *m = im->m;
    const Onnx__TypeProto__Tensor *t;
    Binding b = {.kind = BIND_VALUE, .name = onnx_str(m, v->name)};
    Type type = {0};
    if (b.name.n == 0)
        return diag_error(im->d, DIAG_ONNX_NAME, im->file->path, "has no name");
    if (!tensor_type(im, v, &t, &type.dtype))
        return false;
    if (t->shape == NULL)
        return diag_error(im->d, DIAG_ONNX_INTERFACE, im->file->path,
                          "has no shape; not even its rank is known");
    type.rank = (int)t->shape->n_dim;
    int64_t count = 1;
    for (int i = 0; i < type.rank; i++) {
        int64_t n = 1;
        if (!input_dim(im, t->shape->dim[i], b.name, (size_t)i, &type.dim[i]))
            return false;
        dim_is_const(m->dims, type.dim[i], &n);
        if (n != 0 && (!mul_i64(count, n, &count) || count >= MOEC_MAX_TENSOR))
            return diag_error(im->d, DIAG_LIMIT, im->file->path,
                              "its constant extents alone make 2^47 elements or more");
    }
    b.value = func_input(m, scope->f, b.name, type);
    return scope_define(scope, b) ||
           diag_error(im->d, DIAG_ONNX_NAME, im->file->path, "is the name of another input");
}

static bool import_inputs(Import *im, Scope *scope, const Onnx__GraphProto *g)
{
    bool ok = true;
    for (size_t i = 0; i < g->n_input; i++) {
        const Onnx__ValueInfoProto *v = g->input[i];
        Str name = str_c(v->name != NULL ? v->name : "");
        const Binding *b = scope_find(scope, name);
        if (b != NULL && b->kind != BIND_VALUE)
            continue; /* an initializer listed as input, as files before IR version 4 do */
        diag_push(im->d, "input '%s'", diag_show(im->d, name));
        ok &= import_input(im, scope, v);
        diag_pop(im->d);
    }
    return ok;
}

/* Remembers what the file says of an output, for onnx_check_outputs; a different element type is an error now. */
static bool declared_output(Import *im, Scope *scope, const Onnx__ValueInfoProto *v, ValueId id, uint32_t index)
{
    if (v->type == NULL || v->type->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET)
        return true;
    const Onnx__TypeProto__Tensor *t;
    OnnxOutput o = {.index = index, .file = im->file->path};
    if (!tensor_type(im, v, &t, &o.type.dtype))
        return false;
    DType is = scope->f->value[id].type.dtype;
    if (is != o.type.dtype)
        return diag_error(im->d, DIAG_ONNX_INTERFACE, im->file->path, "is declared %s but is %s",
                          dtype_name(o.type.dtype), dtype_name(is));
    if (t->shape == NULL || scope->outer != NULL)
        return true;
    o.func = (Str){arena_strndup(im->file->owner->arena, scope->f->name.p, scope->f->name.n), scope->f->name.n};
    o.type.rank = (int)t->shape->n_dim;
    for (int i = 0; i < o.type.rank; i++) {
        const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        o.dim[i] = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ? d->dim_value : -1;
    }
    vec_push(&im->file->owner->output, o);
    return true;
}

static bool import_output(Import *im, Scope *scope, const Onnx__ValueInfoProto *v, uint32_t index, NameMap *seen)
{
    ValueId id = NONE;
    bool poisoned = false;
    Str name = str_c(v->name != NULL ? v->name : "");
    if (!scope_value(im, scope, name, &id, &poisoned))
        return diag_error(im->d, DIAG_ONNX_NAME, im->file->path, "no node makes it");
    if (!namemap_add(seen, name, 0))
        return diag_error(im->d, DIAG_ONNX_NAME, im->file->path, "is listed twice");
    if (poisoned || !declared_output(im, scope, v, id, index))
        return false;
    func_output(im->m, scope->f, id, name);
    return true;
}

/* dim[k] < 0: not known. */
static bool output_fits(const OnnxOutput *o, Str output, int rank, const int64_t *dim, Diag *d)
{
    const char *name = diag_show(d, output);
    bool ok = true;
    if (rank != o->type.rank)
        return diag_error(d, DIAG_ONNX_INTERFACE, o->file, "output '%s': is declared with rank %d but has rank %d", name,
                          o->type.rank, rank);
    for (int k = 0; k < rank; k++)
        if (o->dim[k] >= 0 && dim[k] >= 0 && dim[k] != o->dim[k])
            ok = diag_error(d, DIAG_ONNX_INTERFACE, o->file, "output '%s': axis %d is declared %" PRId64 " but is %" PRId64,
                            name, k, o->dim[k], dim[k]);
    return ok;
}

bool onnx_check_results(const OnnxFiles *files, const Func *f, const Tensor *out, Diag *d)
{
    bool ok = true;
    for (size_t i = 0; files != NULL && i < files->output.count; i++) {
        const OnnxOutput *o = &files->output.item[i];
        if (str_eq(o->func, f->name) && o->index < f->n_outputs)
            ok &= output_fits(o, f->output_name[o->index], out[o->index].rank, out[o->index].dim, d);
    }
    return ok;
}

bool onnx_check_outputs(const Module *m, const OnnxFiles *files, Diag *d)
{
    bool ok = true;
    int64_t dim[MOEC_MAX_RANK];
    for (size_t i = 0; i < files->output.count; i++) {
        const OnnxOutput *o = &files->output.item[i];
        const Func *f = module_find(m, o->func.p);
        if (f == NULL || o->index >= f->n_outputs)
            continue;
        const Type *is = &f->value[f->output[o->index]].type;
        if (is->rank == UNRANKED)
            continue;
        for (int k = 0; k < is->rank; k++)
            if (!dim_is_const(m->dims, is->dim[k], &dim[k]))
                dim[k] = -1;
        ok &= output_fits(o, f->output_name[o->index], is->rank, dim, d);
    }
    return ok;
}

/* ---- a graph's body ------------------------------------------------------------------------------------------------- */

bool onnx_graph_body(Import *im, Scope *scope, const Onnx__GraphProto *g)
{
    if (!sparse_refused(im, g) || !import_initializers(im, scope, g) || !import_inputs(im, scope, g))
        return false;
    bool ok = true;
    NameMap seen = {0};
    for (size_t i = 0; i < g->n_node; i++)
        ok &= onnx_node_import(im, scope, g->node[i]);
    if (g->n_output == 0)
        return diag_error(im->d, DIAG_ONNX_INTERFACE, im->file->path, "the graph has no outputs");
    for (size_t i = 0; i < g->n_output; i++) {
        const char *name = g->output[i]->name != NULL ? g->output[i]->name : "";
        diag_push(im->d, "output '%s'", diag_show(im->d, str_c(name)));
        ok &= import_output(im, scope, g->output[i], (uint32_t)i, &seen);
        diag_pop(im->d);
    }
    namemap_free(&seen);
    return ok;
}

/* ---- If ----------------------------------------------------------------------------------------------------------------- */

typedef Vec(const Onnx__GraphProto *) Graphs;
typedef Vec(Str) Names;

/* Names in `g` and the graphs inside of it that stand for values of the scope's function or of outer ones. */
static void captured_names(const Scope *scope, const Onnx__GraphProto *g, NameMap *seen, Names *out)
{
    Graphs todo = {0};
    vec_push(&todo, g);
    for (size_t at = 0; at < todo.count; at++) {
        const Onnx__GraphProto *x = todo.item[at];
        for (size_t i = 0; i < x->n_node + x->n_output; i++) {
            const Onnx__NodeProto *n = i < x->n_node ? x->node[i] : NULL;
            size_t n_names = n != NULL ? n->n_input : 1;
            for (size_t k = 0; k < n_names; k++) {
                const char *s = n != NULL ? n->input[k] : x->output[i - x->n_node]->name;
                Str name = str_c(s != NULL ? s : "");
                const Binding *b = name.n > 0 ? scope_find(scope, name) : NULL;
                if (b != NULL && b->kind == BIND_VALUE && namemap_add(seen, b->name, 0))
                    vec_push(out, b->name);
            }
            for (size_t k = 0; n != NULL && k < n->n_attribute; k++)
                if (n->attribute[k]->g != NULL)
                    vec_push(&todo, n->attribute[k]->g);
        }
    }
    vec_free(&todo);
}

static bool import_branch(NodeCtx *c, const char *which, const Names *captured, FuncId *out)
{
    Import *im = c->im;
    const Onnx__GraphProto *g = ctx_attr(c, which)->g;
    if (g->n_input > 0)
        return ctx_error(c, DIAG_ONNX_BRANCH, "%s has inputs; it may only use values from outside", which);
    if (c->scope->depth + 1 > LIMIT_ONNX_SUBGRAPH)
        return ctx_error(c, DIAG_LIMIT, "sub-graphs are nested more than %d deep", LIMIT_ONNX_SUBGRAPH);
    const char *name = arena_printf(c->m->arena, "%s.%s.%u", c->f->name.p, which, c->f->n_nodes);
    Scope scope = {.outer = c->scope, .depth = c->scope->depth + 1};
    scope.f = func_begin(c->m, str_c(name), FR_BODY);
    for (size_t i = 0; i < captured->count; i++) {
        bool poisoned = false;
        ValueId v;
        CHECK(scope_value(im, c->scope, captured->item[i], &v, &poisoned) && !poisoned);
        Binding b = {.kind = BIND_VALUE, .name = captured->item[i]};
        b.value = func_input(c->m, scope.f, b.name, c->f->value[v].type);
        namemap_add(&scope.names, b.name, (uint32_t)scope.bind.count);
        vec_push(&scope.bind, b);
    }
    bool ok = onnx_graph_body(im, &scope, g);
    if (ok)
        *out = func_end(c->m, scope.f, NONE);
    scope_free(&scope);
    c->failed |= !ok;
    return ok;
}

bool onnx_if(NodeCtx *c)
{
    static const char *const which[2] = {"then_branch", "else_branch"};
    if (value_dtype(c, c->in[0]) != DT_BOOL)
        return ctx_error(c, DIAG_ONNX_BRANCH, "the condition is %s, not bool",
                         dtype_name(value_dtype(c, c->in[0])));
    NameMap seen = {0};
    Names captured = {0};
    FuncId id[2] = {NONE, NONE};
    for (int i = 0; i < 2; i++)
        captured_names(c->scope, ctx_attr(c, which[i])->g, &seen, &captured);
    bool ok = true;
    for (int i = 0; i < 2; i++)
        ok &= import_branch(c, which[i], &captured, &id[i]);
    if (ok) {
        const Func *yes = module_func(c->m, id[0]), *no = module_func(c->m, id[1]);
        if (yes->n_outputs != no->n_outputs)
            ok = ctx_error(c, DIAG_ONNX_BRANCH, "then_branch has %u outputs, else_branch %u", yes->n_outputs,
                           no->n_outputs);
        else if (c->n_out > yes->n_outputs)
            ok = ctx_error(c, DIAG_ONNX_BRANCH, "names %u outputs, its branches have %u", c->n_out,
                           yes->n_outputs);
        for (uint32_t i = 0; ok && i < yes->n_outputs; i++)
            if (yes->value[yes->output[i]].type.dtype != no->value[no->output[i]].type.dtype)
                ok = ctx_error(c, DIAG_ONNX_BRANCH,
                               "output %u has another element type in then_branch than in else_branch", i);
        if (ok) {
            Arena *scratch = arena_new();
            uint32_t n_in = (uint32_t)captured.count + 1, n_out = yes->n_outputs;
            ValueId *in = arena_array(scratch, n_in, sizeof *in);
            Type *types = arena_array(scratch, n_out + 1, sizeof *types);
            in[0] = c->in[0];
            for (uint32_t i = 1; i < n_in; i++) {
                bool poisoned = false;
                scope_value(c->im, c->scope, captured.item[i - 1], &in[i], &poisoned);
            }
            Attr at[2] = {attr_i(AT_then_func, id[0]), attr_i(AT_else_func, id[1])};
            const char *why = NULL;
            uint32_t inferred = n_out; /* room */
            ok = node_infer(c->m, c->f, OP_if, in, n_in, at, 2, types, &inferred, &why) ||
                 ctx_error(c, DIAG_ONNX_BRANCH, "%s", why);
            if (ok) {
                ValueId v = func_node_typed(c->m, c->f, OP_if, in, n_in, at, 2, types, n_out, c->origin);
                for (uint32_t i = 0; i < c->n_out; i++)
                    c->out[i] = v + i;
            }
            arena_free(scratch);
        }
    }
    namemap_free(&seen);
    vec_free(&captured);
    return ok;
}

/* ---- a model -------------------------------------------------------------------------------------------------------------- */

static bool import_opsets(Import *im, const Onnx__ModelProto *model)
{
    const char *file = im->file->path;
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = model->opset_import[i];
        const char *domain = o->domain != NULL ? o->domain : "";
        if (domain[0] != 0 && strcmp(domain, "ai.onnx") != 0)
            continue;
        if (im->opset != 0)
            return diag_error(im->d, DIAG_ONNX_OPSET, file, "opset of the default domain is imported twice");
        if (!o->has_version || o->version < ONNX_MIN_OPSET || o->version > ONNX_MAX_OPSET)
            return diag_error(im->d, DIAG_ONNX_OPSET, file,
                              "opset %" PRId64 " is not supported; opsets %d to %d are",
                              o->has_version ? o->version : 0, ONNX_MIN_OPSET, ONNX_MAX_OPSET);
        im->opset = (int)o->version;
    }
    if (model->n_opset_import == 0)
        return diag_error(im->d, DIAG_ONNX_OPSET, file, "imports no opset");
    return true;
}

static bool domain_imported(const Import *im, const Onnx__ModelProto *model, const char *domain)
{
    if (domain[0] == 0 || strcmp(domain, "ai.onnx") == 0)
        return im->opset != 0;
    for (size_t i = 0; i < model->n_opset_import; i++)
        if (model->opset_import[i]->domain != NULL && strcmp(model->opset_import[i]->domain, domain) == 0)
            return true;
    return false;
}

typedef struct Depth {
    const Onnx__GraphProto *g;
    int depth;
} Depth;

/* Every graph, each kind of operator that cannot be imported reported once, with the first node that has it. */
static bool supported(Import *im, const Onnx__ModelProto *model)
{
    bool ok = true;
    NameMap seen = {0};
    Vec(Depth) todo = {0};
    Arena *scratch = arena_new();
    Depth root = {model->graph, 0};
    vec_push(&todo, root);
    for (size_t at = 0; at < todo.count; at++) {
        Depth now = todo.item[at];
        if (now.depth > LIMIT_ONNX_SUBGRAPH) {
            ok = diag_error(im->d, DIAG_LIMIT, im->file->path, "sub-graphs are nested more than %d deep",
                            LIMIT_ONNX_SUBGRAPH);
            break;
        }
        for (size_t i = 0; i < now.g->n_node; i++) {
            const Onnx__NodeProto *n = now.g->node[i];
            const char *domain = n->domain != NULL ? n->domain : "", *op = n->op_type != NULL ? n->op_type : "";
            const char *shown = n->name != NULL && n->name[0] != 0 ? n->name : n->n_output > 0 ? n->output[0] : op;
            bool imported = domain_imported(im, model, domain);
            if (!imported || onnx_op_find(str_c(domain), str_c(op), im->opset) == NULL) {
                ok = false;
                const char *key = arena_printf(scratch, "%s\n%s", domain, op);
                if (namemap_add(&seen, str_c(key), 0)) {
                    diag_push(im->d, "node '%s'", diag_show(im->d, str_c(shown)));
                    if (imported)
                        diag_error(im->d, DIAG_ONNX_OPERATOR, im->file->path,
                                   "operator %s (domain '%s', opset %d) is not supported",
                                   diag_show(im->d, str_c(op)), diag_show(im->d, str_c(domain)), im->opset);
                    else
                        diag_error(im->d, DIAG_ONNX_OPERATOR, im->file->path,
                                   "operator %s: domain '%s' has no opset import",
                                   diag_show(im->d, str_c(op)), diag_show(im->d, str_c(domain)));
                    diag_pop(im->d);
                }
            }
            for (size_t k = 0; k < n->n_attribute; k++) {
                Depth inner = {n->attribute[k]->g, now.depth + 1};
                if (inner.g != NULL)
                    vec_push(&todo, inner);
            }
        }
    }
    arena_free(scratch);
    vec_free(&todo);
    namemap_free(&seen);
    return ok;
}

static bool import_model(Import *im, const Onnx__ModelProto *model, const char *func_name)
{
    const char *file = im->file->path;
    if (model->graph == NULL)
        return diag_error(im->d, DIAG_ONNX_NOT_A_MODEL, file, "not an ONNX model: it has no graph");
    for (size_t i = 0; i < model->n_functions; i++) {
        const char *name = model->functions[i]->name;
        diag_error(im->d, DIAG_ONNX_FEATURE, file,
                   "model-local function '%s' is not supported: inline functions when exporting",
                   diag_show(im->d, str_c(name != NULL ? name : "")));
    }
    if (model->n_functions > 0 || !import_opsets(im, model) || !supported(im, model))
        return false;
    Scope scope = {.f = func_begin(im->m, str_c(func_name), FR_ENTRY)};
    scope.f->file = arena_strndup(im->m->arena, file, strlen(file));
    bool ok = onnx_graph_body(im, &scope, model->graph) && !im->failed;
    if (ok)
        func_end(im->m, scope.f, NONE);
    scope_free(&scope);
    return ok;
}

bool onnx_import(Module *m, const char *path, const char *func_name, OnnxFiles *files, Diag *d)
{
    OnnxFile file;
    if (!onnx_file_open(files, path, ONNX_MODEL, &file, d))
        return false;
    Import im = {.m = m, .file = &file, .d = d};
    bool ok = import_model(&im, file.model, func_name);
    onnx_file_close(&file);
    return ok;
}

bool onnx_branch_input(const Module *m, const char *func_name, Str *name)
{
    const Func *f = module_find(m, func_name);
    for (uint32_t i = 0; f != NULL && i < f->n_nodes; i++) {
        if (f->node[i].op != OP_if)
            continue;
        const Value *v = &f->value[f->node[i].in[0]];
        if (v->kind == VK_INPUT) {
            *name = v->name;
            return true;
        }
    }
    return false;
}
