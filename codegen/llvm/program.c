/* The program around its kernels: entry functions, size rules, tables. */
#include "builder.h"

#include "../../runtime/moec_rt.h"

/* ---- calls and sizes --------------------------------------------------------------------------- */

static Val place(Builder *x, const Place *at) {
    static const size_t base[] = {
        [PLACE_WEIGHTS] = offsetof(moec_frame, weights), [PLACE_ADAPTER] = offsetof(moec_frame, adapter),
        [PLACE_DERIVED] = offsetof(moec_frame, derived), [PLACE_ARENA] = offsetof(moec_frame, arena),
        [PLACE_ARG] = offsetof(moec_frame, arg),
    };
    Val from = lb_frame_field(x, base[at->where]);
    if (at->where != PLACE_ARG)
        return lb_bytes_from(x, from, (int64_t)at->at);
    return LLVMBuildLoad2(x->b, x->ptr, lb_bytes_from(x, from, (int64_t)(at->at * sizeof(void *))), "");
}

/* A mark of programs that measure their kernels. */
static void profile(Builder *x, const char *name, Val number) {
    Ty param[] = {x->ptr, x->i32};
    Val arg[] = {x->frame, number};
    unsigned n = number ? 2 : 1;
    if (x->p->o->profile)
        lb_call(x, lb_runtime(x, name, x->nothing, param, n), arg, n);
}

static void calls(Builder *x, const CallList *l) {
    lb_open(x, lb_add_function(x, l->symbol, x->nothing, &x->ptr, 1, l->line), l->line);
    x->frame = LLVMGetParam(x->fn, 0);
    profile(x, "moec_profile_begin", NULL);
    for (uint32_t i = 0; i < l->n_calls; i++) {
        const KernelCall *c = &l->call[i];
        lb_line(x, c->line);
        Val *arg = arena_array(x->arena, c->n_places + 1, sizeof *arg);
        arg[0] = x->frame;
        for (uint32_t j = 0; j < c->n_places; j++)
            arg[j + 1] = place(x, &c->place[j]);
        lb_call(x, lb_function(x, lb_text(x, "%.*s", c->kernel->name)), arg, c->n_places + 1);
        Val number = lb_number(x->i32, l->first + i);
        profile(x, "moec_profile_mark", number);
    }
    lb_line(x, l->line);
    LLVMBuildRetVoid(x->b);
}

static void size_rule(Builder *x, const SizeRule *r) {
    Ty with_row[] = {x->ptr, x->i32, x->ptr}, alone[] = {x->ptr, x->ptr};
    lb_open(x,
            r->selects ? lb_add_function(x, r->symbol, x->nothing, with_row, 3, 0)
                       : lb_add_function(x, r->symbol, x->nothing, alone, 2, 0),
            0);
    lb_load_symbols(x, LLVMGetParam(x->fn, 0));
    Val out = LLVMGetParam(x->fn, r->selects ? 2 : 1);
    LLVMBasicBlockRef after = lb_new_block(x, "end"), here = LLVMGetInsertBlock(x->b);
    Val which = r->selects ? LLVMBuildSwitch(x->b, LLVMGetParam(x->fn, 1), after, r->n_rows) : NULL;
    for (uint32_t i = 0; i < r->n_rows; i++) {
        LLVMBasicBlockRef row = which ? lb_new_block(x, "row") : here;
        if (which)
            LLVMAddCase(which, lb_number(x->i32, i), row);
        lb_enter(x, row);
        for (uint32_t k = 0; k < r->row[i].n; k++)
            LLVMBuildStore(x->b, lb_size(x, r->row[i].dim[k]),
                           lb_bytes_from(x, out, (int64_t)(k * sizeof(int64_t))));
        LLVMBuildBr(x->b, after);
    }
    lb_enter(x, after);
    LLVMBuildRetVoid(x->b);
}

/* ---- tables ------------------------------------------------------------------------------------ */

static Val text_constant(Builder *x, Str s) {
    Val init = LLVMConstStringInContext2(x->cx, s.p ? s.p : "", s.n, false);
    Val g = lb_constant(x, "", LLVMTypeOf(init), init);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
    return g;
}

static Val reference(Builder *x, const char *symbol) {
    if (!symbol)
        return LLVMConstNull(x->ptr);
    Val v = LLVMGetNamedGlobal(x->m, symbol);
    return v ? v : lb_function(x, symbol);
}

static Val cell(Builder *x, CellKind kind, const Cell *c) {
    switch (kind) {
    case CELL_U8:
        return lb_number(x->i8, c->i);
    case CELL_I16:
        return lb_number(x->i16, c->i);
    case CELL_I32:
    case CELL_U32:
        return lb_number(x->i32, c->i);
    case CELL_TEXT:
        return text_constant(x, c->text);
    case CELL_REF:
        return reference(x, c->ref);
    default:
        return lb_i64(x, c->i);
    }
}

static Val table_row(Builder *x, const Record *r, const Cell *c) {
    Val *field = arena_array(x->arena, r->n_fields, sizeof *field);
    for (uint32_t i = 0; i < r->n_fields; i++) {
        const Field *f = &r->field[i];
        Val item[8] = {0};
        CHECK(f->count > 0 && f->count <= 8);
        for (uint32_t k = 0; k < f->count; k++)
            item[k] = cell(x, f->kind, c++);
        field[i] = f->count == 1 ? item[0] : LLVMConstArray2(LLVMTypeOf(item[0]), item, f->count);
    }
    return LLVMConstStructInContext(x->cx, field, r->n_fields, false);
}

/* The runtime's structs as C lays them out: natural alignment, no packing. */
static void check_layout(Builder *x, const Record *r, Ty type) {
    LLVMTargetDataRef layout = LLVMGetModuleDataLayout(x->m);
    for (uint32_t i = 0; i < r->n_fields; i++)
        if (LLVMOffsetOfElement(layout, type, i) != r->field[i].offset)
            BUG("%s.%s is elsewhere for the target", r->type, r->field[i].name);
    if (LLVMABISizeOfType(layout, type) != r->size)
        BUG("%s has another size for the target", r->type);
}

static void table(Builder *x, const Table *t) {
    Val *row = arena_array(x->arena, t->n_rows, sizeof *row);
    size_t each = 0;
    for (uint32_t i = 0; i < t->record->n_fields; i++)
        each += t->record->field[i].count;
    for (uint32_t i = 0; i < t->n_rows; i++)
        row[i] = table_row(x, t->record, t->cell + i * each);
    Ty type = LLVMTypeOf(row[0]);
    check_layout(x, t->record, type);
    Val init = t->single ? row[0] : LLVMConstArray2(type, row, t->n_rows);
    lb_constant(x, t->symbol, LLVMTypeOf(init), init);
}

static void text_bytes(Builder *x, const char *symbol, Str s) {
    Val init = LLVMConstStringInContext2(x->cx, s.p ? s.p : "", s.n, false);
    lb_constant(x, symbol, LLVMTypeOf(init), init);
}

const char *lb_program_name(Builder *x, const CodeVariant *v) {
    return arena_printf(x->arena, v ? "%s_program_%s" : "%s_program", x->p->o->prefix, v ? v->name : "");
}

void lb_chooser(Builder *x) {
    const LlvmOptions *o = x->o;
    Val row[MOST_VARIANTS] = {NULL};
    Ty two[] = {x->ptr, x->i32};
    for (uint32_t i = 0; i < o->n_variants; i++) {
        const char *name = arena_printf(x->arena, PROGRAM_VARIANT "_%s", o->variant[i]->name);
        text_bytes(x, name, str_c(o->variant[i]->name));
        Val field[] = {LLVMGetNamedGlobal(x->m, name),
                       lb_runtime(x, lb_program_name(x, o->variant[i]), x->ptr, NULL, 0)};
        row[i] = LLVMConstStructInContext(x->cx, field, 2, false);
    }
    Val table = LLVMConstArray2(LLVMTypeOf(row[0]), row, o->n_variants);
    Val arg[] = {lb_constant(x, "variants", LLVMTypeOf(table), table), lb_number(x->i32, o->n_variants)};
    Val fn = LLVMAddFunction(x->m, lb_program_name(x, NULL), LLVMFunctionType(x->ptr, NULL, 0, false));
    lb_open(x, fn, 0);
    LLVMBuildRet(x->b, lb_call(x, lb_runtime(x, "moec_choose", x->ptr, two, 2), arg, 2));
}

/* The weights file as it is: an assembler's include, or the constant would stand in memory several times. */
void lb_embed_weights(Builder *x) {
    Text t = {0};
    if (!x->p->weights || !x->o->weights)
        return;
    text_printf(&t, ".section .rodata\n.balign 64\n.globl %s\n.hidden %s\n%s:\n.incbin ", x->p->weights,
                x->p->weights, x->p->weights);
    text_quoted(&t, str_c(x->o->weights));
    text_printf(&t, "\n.text\n");
    LLVMAppendModuleInlineAsm(x->m, t.p, t.n);
    text_free(&t);
}

void lb_program(Builder *x) {
    const Program *p = x->p;
    x->symbol = arena_array(x->arena, dim_sym_count(p->m->dims) + 1, sizeof *x->symbol);
    for (uint32_t i = 0; i < p->n_routines; i++)
        lb_routine(x, p->routine[i]);
    for (uint32_t i = 0; i < p->n_kernels; i++)
        lb_kernel(x, p->kernel[i]);
    if (p->prepare)
        calls(x, p->prepare);
    for (uint32_t i = 0; i < p->n_functions; i++)
        calls(x, &p->function[i]);
    for (uint32_t i = 0; i < p->n_size_rules; i++)
        size_rule(x, &p->size_rule[i]);
    if (p->weights)
        LLVMAddGlobal(x->m, x->i8, p->weights);
    text_bytes(x, PROGRAM_SPEC, p->m->spec);
    if (x->variant)
        text_bytes(x, PROGRAM_VARIANT, str_c(x->variant->name));
    for (uint32_t i = 0; i < p->n_tables; i++)
        table(x, &p->table[i]);
    const char *name = lb_program_name(x, x->variant);
    lb_open(x, LLVMAddFunction(x->m, name, LLVMFunctionType(x->ptr, NULL, 0, false)), 0);
    LLVMBuildRet(x->b, reference(x, p->table[p->n_tables - 1].symbol));
}
