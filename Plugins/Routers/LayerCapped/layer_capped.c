/* SPDX-License-Identifier: Apache-2.0
 *
 * layer-capped: a router that bounds memory. Within one request, a layer uses at most max_experts distinct experts.
 *
 * Each token ranks the experts as the checkpoint's own router does (softmax over all logits, lower id first on
 * ties). It takes its best ones, but once max_experts distinct experts were used in that layer, only among those.
 * State is one set of experts a layer. A token's choice depends on the tokens before it and on nothing else, so
 * that chunking and batching change nothing.
 *
 * Written from blyan_plugin.h alone.
 */
#include "blyan_plugin.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any model has; keeps sizes far from overflow. */
#define LIMIT 65536u
/* Distinct experts a layer may use when the manifest does not say. */
#define DEFAULT_MAX_EXPERTS 4u

typedef struct router {
    uint32_t max_experts;
} router;

/* One layer of one request. */
typedef struct layer_state {
    uint32_t used;          /* experts marked in the layer's row of request.used */
    uint64_t next_position; /* lowest position that may come now */
} layer_state;

typedef struct request {
    blyan_router_model model;
    layer_state *layers; /* one a layer */
    uint8_t *used;       /* layers * experts, 1 = used */
    float *scores;       /* experts: scratch for one row */
} request;

static blyan_status fail(blyan_error *error, blyan_status status, const char *format, ...) {
    if (error != NULL && error->struct_size >= sizeof(blyan_error)) {
        va_list arguments;
        va_start(arguments, format);
        int length = vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        if (length < 0) length = 0;
        if ((size_t)length >= sizeof error->text) length = sizeof error->text - 1;
        error->text_length = (uint32_t)length;
    }
    return status;
}

/* ---- configuration -------------------------------------------------------------------------- */

/* The host has checked the object by the schema below: it is {} or {"max_experts":N}. */
static uint32_t max_experts_in(blyan_string config) {
    static const char key[] = "\"max_experts\"";
    const size_t length = sizeof key - 1;
    for (uint64_t i = 0; i + length <= config.size; i++) {
        if (memcmp(config.data + i, key, length) != 0) continue;
        uint32_t value = 0;
        for (i += length; i < config.size && config.data[i] != '}'; i++)
            if (config.data[i] >= '0' && config.data[i] <= '9' && value <= LIMIT)
                value = value * 10 + (uint32_t)(config.data[i] - '0');
        return value;
    }
    return DEFAULT_MAX_EXPERTS;
}

static blyan_status create(const blyan_host *host, blyan_string config, void **instance, blyan_error *error) {
    (void)host;
    uint32_t max_experts = max_experts_in(config);
    if (max_experts < 1 || max_experts > LIMIT)
        return fail(error, BLYAN_E_CONFIG, "max_experts is %" PRIu32 ", expected 1 to %u", max_experts, LIMIT);
    router *self = malloc(sizeof *self);
    if (self == NULL) return fail(error, BLYAN_E_MEMORY, "no memory for the router");
    self->max_experts = max_experts;
    *instance = self;
    return BLYAN_OK;
}

static void destroy(void *instance) { free(instance); }

/* ---- requests ------------------------------------------------------------------------------- */

static void close_request(void *instance, void *handle) {
    (void)instance;
    request *r = handle;
    if (r == NULL) return;
    free(r->layers);
    free(r->used);
    free(r->scores);
    free(r);
}

static request *new_request(const blyan_router_model *model) {
    request *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->model = *model;
    r->layers = calloc(model->layers, sizeof *r->layers);
    r->used = calloc((size_t)model->layers * model->experts, sizeof *r->used);
    r->scores = calloc(model->experts, sizeof *r->scores);
    if (r->layers == NULL || r->used == NULL || r->scores == NULL) {
        close_request(NULL, r);
        return NULL;
    }
    return r;
}

static blyan_status open_request(void *instance, const blyan_router_model *model, void **out, blyan_error *error) {
    const router *self = instance;
    if (model->struct_size < sizeof *model) return fail(error, BLYAN_E_ARGUMENT, "the model is of another ABI");
    if (model->layers < 1 || model->layers > LIMIT || model->experts < 1 || model->experts > LIMIT)
        return fail(error, BLYAN_E_LIMIT, "%" PRIu32 " layers of %" PRIu32 " experts, expected 1 to %u of each",
                    model->layers, model->experts, LIMIT);
    if (model->experts_per_token < 1 || model->experts_per_token > model->experts)
        return fail(error, BLYAN_E_ARGUMENT, "%" PRIu32 " experts per token of %" PRIu32,
                    model->experts_per_token, model->experts);
    if (model->experts_per_token > self->max_experts)
        return fail(error, BLYAN_E_CONFIG,
                    "max_experts is %" PRIu32 ", but a token of this model uses %" PRIu32 ": raise max_experts",
                    self->max_experts, model->experts_per_token);
    request *r = new_request(model);
    if (r == NULL) return fail(error, BLYAN_E_MEMORY, "no memory for a request");
    *out = r;
    return BLYAN_OK;
}

static blyan_status clone_request(void *instance, void *handle, void **out, blyan_error *error) {
    (void)instance;
    const request *old = handle;
    request *r = new_request(&old->model);
    if (r == NULL) return fail(error, BLYAN_E_MEMORY, "no memory for a request");
    memcpy(r->layers, old->layers, old->model.layers * sizeof *old->layers);
    memcpy(r->used, old->used, (size_t)old->model.layers * old->model.experts);
    *out = r;
    return BLYAN_OK;
}

/* ---- routing -------------------------------------------------------------------------------- */

/* e^x of x <= 0. A C library's expf differs by version and processor, and so would weights. This is plain arithmetic of
 * doubles, each operation rounded once: x = n ln 2 + r with ln 2 in two parts (Cody and Waite), and the rational
 * function of the Cephes library (S. Moshier) for e^r. */
static float exponential(float x) {
    /* Below, half of the smallest number that f32 holds is not reached. */
    if (!(x > -104)) return 0;
    const double wide = x;
    const int64_t n = (int64_t)(wide * 1.4426950408889634 - 0.5);
    const double r = wide - (double)n * 6.93145751953125e-1 - (double)n * 1.4286068203094172e-6, rr = r * r;
    const double p = r * ((1.2617719307481059e-4 * rr + 3.0299440770744196e-2) * rr + 1);
    const double q = ((3.0019850513866446e-6 * rr + 2.524483403496841e-3) * rr + 2.2726554820815503e-1) * rr + 2;
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return (float)((1 + 2 * (p / (q - p))) * power);
}

/* Softmax over all experts, in f32, with the maximum taken off first. */
static blyan_status softmax(const blyan_route *route, uint32_t row, request *r, blyan_error *error) {
    const uint32_t experts = r->model.experts;
    const float *logits = route->logits + (size_t)row * experts;
    float top = -INFINITY, sum = 0;
    for (uint32_t e = 0; e < experts; e++) {
        if (!isfinite(logits[e]))
            return fail(error, BLYAN_E_MALFORMED,
                        "layer %" PRIu32 ", position %" PRIu64 ": the logit of expert %" PRIu32 " is not finite",
                        route->layer, route->positions[row], e);
        if (logits[e] > top) top = logits[e];
    }
    for (uint32_t e = 0; e < experts; e++) sum += r->scores[e] = exponential(logits[e] - top);
    for (uint32_t e = 0; e < experts; e++) r->scores[e] /= sum;
    return BLYAN_OK;
}

/* Whether expert a ranks before expert b < a. Far below the best one probabilities are all 0: there the
 * logits decide. */
static int better(const float *scores, const float *logits, uint32_t a, uint32_t b) {
    if (scores[a] != scores[b]) return scores[a] > scores[b];
    return scores[a] == 0 && logits[a] > logits[b];
}

/* Divides the weights of the picked experts by their sum; where that is 0, by softmax over the picked alone. */
static void normalise(float *weights, const uint32_t *ids, const float *logits, uint32_t slots, float sum) {
    if (sum == 0) {
        for (uint32_t slot = 0; slot < slots; slot++) sum += weights[slot] = exponential(logits[ids[slot]] - logits[ids[0]]);
    }
    for (uint32_t slot = 0; slot < slots; slot++) weights[slot] /= sum;
}

static blyan_status route_row(const router *self, const blyan_route *route, uint32_t row, blyan_error *error) {
    request *r = route->requests[row];
    if (r == NULL) return fail(error, BLYAN_E_ARGUMENT, "row %" PRIu32 " has no request", row);
    const uint32_t experts = r->model.experts, slots = r->model.experts_per_token;
    const float *logits = route->logits + (size_t)row * experts;
    if (route->layer >= r->model.layers || route->slots != slots)
        return fail(error, BLYAN_E_ARGUMENT, "layer %" PRIu32 " with %" PRIu32 " slots, expected %" PRIu32,
                    route->layer, route->slots, slots);
    layer_state *state = &r->layers[route->layer];
    if (route->positions[row] < state->next_position)
        return fail(error, BLYAN_E_ARGUMENT,
                    "layer %" PRIu32 ": position %" PRIu64 " comes after position %" PRIu64, route->layer,
                    route->positions[row], state->next_position - 1);
    blyan_status status = softmax(route, row, r, error);
    if (status != BLYAN_OK) return status;
    state->next_position = route->positions[row] + 1;

    uint8_t *used = r->used + (size_t)route->layer * experts;
    uint32_t *ids = route->ids + (size_t)row * slots;
    float *weights = route->weights + (size_t)row * slots, sum = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        uint32_t best = BLYAN_NO_EXPERT;
        for (uint32_t e = 0; e < experts; e++) {
            if (r->scores[e] < 0 || (!used[e] && state->used >= self->max_experts)) continue;
            if (best == BLYAN_NO_EXPERT || better(r->scores, logits, e, best)) best = e;
        }
        /* max_experts >= slots, so that one is always left. */
        if (best == BLYAN_NO_EXPERT) return fail(error, BLYAN_E_INTERNAL, "no expert is left for slot %" PRIu32, slot);
        ids[slot] = best;
        sum += weights[slot] = r->scores[best];
        r->scores[best] = -1; /* picked */
        if (!used[best]) {
            used[best] = 1;
            state->used++;
        }
    }
    /* The capped choice may be of small probability; whether that shows in the weights is the model's rule. */
    if (r->model.normalise) normalise(weights, ids, logits, slots, sum);
    return BLYAN_OK;
}

static blyan_status route_rows(void *instance, const blyan_route *route, blyan_error *error) {
    if (route->struct_size < sizeof *route) return fail(error, BLYAN_E_ARGUMENT, "the route is of another ABI");
    for (uint32_t row = 0; row < route->rows; row++) {
        blyan_status status = route_row(instance, route, row, error);
        if (status != BLYAN_OK) return status;
    }
    return BLYAN_OK;
}

/* ---- self-test and table -------------------------------------------------------------------- */

/* Two tokens that want experts 0 and 2, with room for one: both get the first token's. */
static blyan_status self_test(void *instance, blyan_error *error) {
    (void)instance;
    router one = {.max_experts = 1};
    const blyan_router_model model = {
        .struct_size = sizeof model, .layers = 1, .experts = 3, .experts_per_token = 1, .normalise = 1};
    void *handle = NULL;
    blyan_status status = open_request(&one, &model, &handle, error);
    if (status != BLYAN_OK) return status;
    const float logits[6] = {2, 0, 1, 0, 1, 2};
    void *const requests[2] = {handle, handle};
    const uint64_t positions[2] = {0, 1};
    uint32_t ids[2] = {BLYAN_NO_EXPERT, BLYAN_NO_EXPERT};
    float weights[2] = {0, 0};
    const blyan_route route = {.struct_size = sizeof route, .layer = 0, .rows = 2, .slots = 1, .logits = logits,
                               .requests = requests, .positions = positions, .ids = ids, .weights = weights};
    status = route_rows(&one, &route, error);
    close_request(&one, handle);
    if (status != BLYAN_OK) return status;
    if (ids[0] != 0 || ids[1] != 0 || weights[0] != 1 || weights[1] != 1)
        return fail(error, BLYAN_E_INTERNAL, "self-test: found experts %" PRIu32 " and %" PRIu32, ids[0], ids[1]);
    return BLYAN_OK;
}

static const blyan_router table = {
    .struct_size = sizeof table,
    .open = open_request,
    .clone = clone_request,
    .close = close_request,
    .route = route_rows,
};

static const void *get_ability(void *instance, const char *id) {
    (void)instance;
    return strcmp(id, BLYAN_ROUTER_ROUTE) == 0 ? &table : NULL;
}

static const blyan_plugin plugin = {
    .magic = BLYAN_PLUGIN_MAGIC,
    .struct_size = sizeof plugin,
    .abi_major = BLYAN_ABI_MAJOR,
    .abi_minor = 0,
    .kind = BLYAN_KIND_ROUTER,
    .name = "layer-capped",
    .version = "1.0.1",
    .config_schema = "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"max_experts\":"
                     "{\"type\":\"integer\",\"minimum\":1,\"maximum\":65536}}}",
    .create = create,
    .destroy = destroy,
    .self_test = self_test,
    .get_ability = get_ability,
};

__attribute__((visibility("default"))) const blyan_plugin *blyan_plugin_entry(void);
const blyan_plugin *blyan_plugin_entry(void) { return &plugin; }
