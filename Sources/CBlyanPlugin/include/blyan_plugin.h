/* SPDX-License-Identifier: Apache-2.0
 *
 * blyan_plugin.h: the contract between a Blyan node (the host) and a plugin.
 *
 * This header alone is enough to write a plugin: a shared library that exports exactly one symbol,
 * blyan_plugin_entry, and a YAML manifest that declares it. A plugin links to nothing of the host.
 * It compiles as C11, C17, C++17 and C++20, and imports into Swift and Rust.
 *
 * Laws
 *  1. Only fixed-width integers, floats, pointer+length views, opaque handles and tables cross.
 *     No exception, no panic, no Swift error leaves a function; no memory is freed by the other side.
 *  2. Each struct that grows begins with struct_size, set by whoever allocates it. New fields come only
 *     at the end; a reader touches no more than min(its own size, struct_size). Structs with no
 *     struct_size (views), and structs that stand in arrays (blyan_tensor, blyan_payment), never change within a
 *     major version, so that arrays are indexed as usual.
 *  3. Optional abilities are asked for by string id "area.name/revision", in both directions.
 *     An unknown id answers NULL. A released table never changes; a new one gets a new revision.
 *  4. Every fallible function returns a blyan_status and may fill the blyan_error it was given.
 *
 * Threads. Each function ends its comment with one tag:
 *   [any-thread]  may be called at any time from any thread, also concurrently with itself.
 *   [serial]      never called concurrently with another [serial] call on the same handle, which is the first
 *                 argument unless the comment says otherwise.
 *   [setup]       called once, before the instance is used, or after its last use.
 * Services of the host may be called from inside any function. An instance or request handle may be NULL: the host
 * passes it back as it is.
 *
 * Ownership. "borrowed" = valid until the call returns, never kept. "static" = valid for as long as the
 * library is mapped, which is until the process ends: a library is never unloaded.
 */
#ifndef BLYAN_PLUGIN_H
#define BLYAN_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ------------------------------------------------------------------------------- */

#define BLYAN_ABI_MAJOR 1u
#define BLYAN_ABI_MINOR 1u
/** "BLYANPLG", little-endian: the first eight bytes of every blyan_plugin. */
#define BLYAN_PLUGIN_MAGIC 0x474C504E41594C42ull
/** Name of the one exported symbol. */
#define BLYAN_PLUGIN_SYMBOL "blyan_plugin_entry"

/* ---- status and error ---------------------------------------------------------------------- */

/** What a call came to. 0 is success, negative is failure; values are never reused. */
typedef int32_t blyan_status;
enum {
    BLYAN_OK = 0,
    BLYAN_E_ARGUMENT = -1,   /**< the caller broke the contract: a programmer's error */
    BLYAN_E_MALFORMED = -2,  /**< the payload's bytes do not follow the format */
    BLYAN_E_UNSUPPORTED = -3,/**< well-formed, but uses something this plugin does not do */
    BLYAN_E_LIMIT = -4,      /**< a stated limit (size, count, depth) is exceeded */
    BLYAN_E_MEMORY = -5,     /**< memory could not be had */
    BLYAN_E_CANCELLED = -6,  /**< the host asked to stop */
    BLYAN_E_DEADLINE = -7,   /**< the time allowed is over */
    BLYAN_E_IO = -8,         /**< the host could not read or write bytes */
    BLYAN_E_INTEGRITY = -9,  /**< bytes do not have the hash that was signed */
    BLYAN_E_CONFIG = -10,    /**< the configuration is not valid */
    BLYAN_E_CAPACITY = -11,  /**< the caller's array is too small; the needed count is returned */
    BLYAN_E_INTERNAL = -12   /**< a defect of the plugin */
};

/** A sentence on what failed: which object, what was found, what was expected. The caller allocates it and
 *  sets struct_size; the callee writes text (UTF-8, not terminated) and text_length. May be NULL. */
typedef struct blyan_error {
    uint32_t struct_size;
    uint32_t text_length; /**< bytes used in text, at most sizeof text */
    char text[512];
} blyan_error;

/** Bytes that somebody else owns. data may be NULL only if size is 0. */
typedef struct blyan_bytes {
    const uint8_t *data;
    uint64_t size;
} blyan_bytes;

/** UTF-8 text that somebody else owns, not terminated. */
typedef struct blyan_string {
    const char *data;
    uint64_t size;
} blyan_string;

/* ---- what the host offers ------------------------------------------------------------------ */

enum { BLYAN_LOG_DEBUG = 0, BLYAN_LOG_INFO = 1, BLYAN_LOG_WARNING = 2, BLYAN_LOG_ERROR = 3 };

/** Services of the host. Static; handed to create, and usable from then on. */
typedef struct blyan_host {
    uint32_t struct_size;
    uint16_t abi_major;
    uint16_t abi_minor;
    /** First argument of every function below. */
    void *context;

    /** Writes one line to the node's log. message is borrowed. [any-thread] */
    void (*log)(void *context, int32_t level, blyan_string message);

    /** SHA-256 of bytes (borrowed) into digest[32], which the caller owns. [any-thread] */
    blyan_status (*sha256)(void *context, blyan_bytes bytes, uint8_t *digest);

    /** Nanoseconds since some fixed point. [any-thread] */
    uint64_t (*monotonic_ns)(void *context);

    /** 1 if the work under way in the calling thread should stop, else 0: the client went away or the node ends.
     *  The host's compute workers do not know it: long loops ask before they hand work out. [any-thread] */
    int32_t (*is_cancelled)(void *context);

    /** A further service by id (static table), or NULL if this host lacks it.
     *  Defined so far: BLYAN_HOST_MATH, and for gates
     *  BLYAN_HOST_TENSORS, BLYAN_HOST_EVALUATE, BLYAN_HOST_HISTORY and BLYAN_HOST_PROBE. id is borrowed and zero-terminated. [any-thread] */
    const void *(*get_service)(void *context, const char *id);
} blyan_host;

/* ---- tensors ------------------------------------------------------------------------------- */

/** Element types. The codes are those of the tensorblock format. */
enum {
    BLYAN_DTYPE_F16 = 1,
    BLYAN_DTYPE_I8 = 2,
    BLYAN_DTYPE_F8_E4M3 = 3,
    BLYAN_DTYPE_BF16 = 4,
    BLYAN_DTYPE_F32 = 5
};

/** How elements lie. The host multiplies with a kernel registered for (layout, dtype, quantisation). */
enum {
    BLYAN_LAYOUT_ROWS = 0,   /**< row after row, elements of a row contiguous */
    BLYAN_LAYOUT_COLUMNS = 1 /**< column after column */
};

/** How stored numbers become values. */
enum {
    BLYAN_QUANT_NONE = 0,
    BLYAN_QUANT_ROW_SYMMETRIC = 1, /**< value = scale[row] * stored; one f32 scale a row */
    BLYAN_QUANT_ROW_AFFINE = 2     /**< value = scale[row] * (stored - zero[row]); f32 scales, f32 zeros */
};

#define BLYAN_TENSOR_NAME_MAX 127

/** One matrix inside a payload. A vector is 1 x N. Tensors may share bytes. Offsets count from the payload's first byte. The host
 *  checks every range against the payload and every length against shape and dtype before use. */
typedef struct blyan_tensor {
    uint32_t struct_size;
    uint32_t dtype;
    uint32_t layout;
    uint32_t quantisation;
    uint64_t rows;
    uint64_t columns;
    uint64_t row_stride;    /**< bytes from a row to the next (BLYAN_LAYOUT_ROWS), else from column to column */
    uint64_t data_offset;
    uint64_t data_length;
    uint64_t scale_offset;  /**< rows f32, little-endian; 0 and 0 if quantisation has none */
    uint64_t scale_length;
    uint64_t zero_offset;   /**< rows f32, little-endian; 0 and 0 if quantisation has none */
    uint64_t zero_length;
    uint32_t name_length;
    char name[BLYAN_TENSOR_NAME_MAX + 1]; /**< UTF-8, not terminated, e.g. "gate" */
} blyan_tensor;

/** A payload as the plugin sees it: bytes come only through read, which verifies them first. Borrowed. */
typedef struct blyan_payload {
    uint32_t struct_size;
    uint32_t reserved;
    void *context;
    uint64_t size; /**< bytes of the whole payload */

    /** Points *out at length bytes from offset on, verified as the node's policy says, valid until the plugin
     *  call that got this payload returns. BLYAN_E_ARGUMENT if the range leaves the payload;
     *  BLYAN_E_INTEGRITY or BLYAN_E_IO otherwise, to be passed on as they are. [any-thread] */
    blyan_status (*read)(void *context, uint64_t offset, uint64_t length, const uint8_t **out, blyan_error *error);
} blyan_payload;

/* ---- host service: mathematics ------------------------------------------------------------- */

#define BLYAN_HOST_MATH "blyan.host.math/1"

/** Products on stored weights. Accumulation is f32 in one fixed order: a row's result does not depend on
 *  how rows or tokens are split over calls. Static. */
typedef struct blyan_math {
    uint32_t struct_size;
    uint32_t reserved;

    /** y[t * y_stride + r] = sum over c of value(r, c) * x[t * x_stride + c], for r in [row_begin, row_end),
     *  t in [0, tokens). data, scales, zeros: the tensor's bytes, BLYAN_LAYOUT_ROWS only, borrowed;
     *  x, y: caller's, not overlapping. BLYAN_E_UNSUPPORTED for a dtype or quantisation it lacks. [any-thread] */
    blyan_status (*multiply)(const blyan_tensor *tensor, const uint8_t *data, const float *scales,
                             const float *zeros, uint64_t row_begin, uint64_t row_end, const float *x,
                             uint64_t x_stride, uint64_t tokens, float *y, uint64_t y_stride);

    /** out[i] = silu(gate[i]) * up[i] for i in [0, count). Arrays are the caller's; out may be gate. [any-thread] */
    void (*swiglu)(const float *gate, const float *up, float *out, uint64_t count);
} blyan_math;

/* ---- kind: format -------------------------------------------------------------------------- */

/** Ability: describe tensors, so that the host multiplies on the mapped bytes. */
#define BLYAN_FORMAT_VIEW "blyan.format.view/1"
/** Ability required of every format: any row range as f32. The reference for tests, training, conversion. */
#define BLYAN_FORMAT_DECODE "blyan.format.decode/1"
/** Ability: compute an expert, for layouts that the host does not know, and for streams. */
#define BLYAN_FORMAT_COMPUTE "blyan.format.compute/1"
/** Ability: write a payload from tensors. */
#define BLYAN_FORMAT_ENCODE "blyan.format.encode/1"

/** The tensors of a payload, in payload order. Both VIEW and DECODE number tensors by this order. */
typedef struct blyan_format_view {
    uint32_t struct_size;
    uint32_t reserved;
    /** Fills tensors[0 ..< min(capacity, n)] and sets *count = n. The array is the caller's, each element's
     *  struct_size is set by the caller. A tensor whose offsets and lengths are all 0 does not lie in the payload
     *  as numbers that a host could read: it is decoded. BLYAN_E_CAPACITY if capacity < n; BLYAN_E_MALFORMED,
     *  BLYAN_E_UNSUPPORTED, BLYAN_E_LIMIT for bad bytes. [any-thread] */
    blyan_status (*describe)(void *instance, const blyan_payload *payload, blyan_tensor *tensors,
                             uint32_t capacity, uint32_t *count, blyan_error *error);
} blyan_format_view;

typedef struct blyan_format_decode {
    uint32_t struct_size;
    uint32_t reserved;
    /** Names, shapes and stored dtypes. As blyan_format_view.describe; a stored dtype that this header has no code
     *  for is named BLYAN_DTYPE_F32, which decode makes of it. [any-thread] */
    blyan_status (*list)(void *instance, const blyan_payload *payload, blyan_tensor *tensors, uint32_t capacity,
                         uint32_t *count, blyan_error *error);
    /** Writes rows [row_begin, row_end) of tensor number `index` as f32, row after row, to out, which holds
     *  (row_end - row_begin) * columns floats and is the caller's. [any-thread] */
    blyan_status (*decode)(void *instance, const blyan_payload *payload, uint32_t index, uint64_t row_begin,
                           uint64_t row_end, float *out, blyan_error *error);
} blyan_format_decode;

/** Where a compute call stands: the expert is three passes over rows, so that threads can share each one. */
enum {
    BLYAN_COMPUTE_HIDDEN = 0, /**< h[t][r] = silu(gate(r)·x[t]) * (up(r)·x[t]); rows are those of gate and up */
    BLYAN_COMPUTE_OUTPUT = 1  /**< y[t][r] += weight[t] * (down(r)·h[t]); rows are those of down */
};

/** One share of one expert for a batch of tokens. All arrays are the caller's and borrowed. */
typedef struct blyan_compute {
    uint32_t struct_size;
    uint32_t stage;
    uint64_t row_begin;
    uint64_t row_end;
    uint64_t tokens;
    const float *x;      /**< stage HIDDEN: tokens rows of x_stride floats; stage OUTPUT: NULL */
    uint64_t x_stride;
    float *h;            /**< tokens rows of h_stride floats; written by HIDDEN, read by OUTPUT */
    uint64_t h_stride;
    const float *weight; /**< stage OUTPUT: one a token; stage HIDDEN: NULL */
    float *y;            /**< stage OUTPUT: tokens rows of y_stride floats, added to; stage HIDDEN: NULL */
    uint64_t y_stride;   /**< not less than the rows of down, as h_stride is not less than those of gate */
} blyan_compute;

typedef struct blyan_format_compute {
    uint32_t struct_size;
    uint32_t reserved;
    /** Does one stage for one row range: never a row, never a token at a time. Distinct row ranges of one stage
     *  may run at once. Before the first share of a payload the host asks with an empty one (no rows, no tokens, no
     *  arrays): BLYAN_E_UNSUPPORTED then makes it decode instead; later it is a failure. [any-thread] */
    blyan_status (*compute)(void *instance, const blyan_payload *payload, const blyan_compute *work,
                            blyan_error *error);
} blyan_format_compute;

/** One tensor to write. Borrowed. data is row-major, contiguous, little-endian, of the dtype named. */
typedef struct blyan_source {
    uint32_t struct_size;
    uint32_t dtype; /**< F16, BF16, F32, or I8 with scales */
    uint64_t rows;
    uint64_t columns;
    blyan_string name;
    blyan_bytes data;
    blyan_bytes scales; /**< rows f32 for BLYAN_DTYPE_I8, else empty */
} blyan_source;

/** Where encoded bytes go, and what is known of them afterwards. The host owns it; borrowed. */
typedef struct blyan_sink {
    uint32_t struct_size;
    uint32_t reserved;
    void *context;
    /** Appends bytes (borrowed) to the payload. A failure is to be passed on as it is. [serial] */
    blyan_status (*write)(void *context, blyan_bytes bytes, blyan_error *error);
    /** After the first `covered` bytes are written: the RFC 6962 leaf hashes (SHA-256 of 0x00 and the leaf) of
     *  [0, covered) cut into leaves of leaf_size (65536), the last one shorter. If there are more than 128, the roots
     *  over each 128 of them (the last over the rest) follow, so that a reader of one leaf hashes a branch and not the
     *  tree. *hashes points at all these, *count * 32 bytes, valid until encode returns. For formats that store them,
     *  as they are. Call it once; covered bytes may not follow. [serial] */
    blyan_status (*leaves)(void *context, uint64_t leaf_size, const uint8_t **hashes, uint64_t *count,
                           uint8_t *root, blyan_error *error);
} blyan_sink;

/** What encode leaves to be signed: which bytes the Merkle leaves cover, and where their hashes were stored. */
typedef struct blyan_encoded {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t covered;          /**< leaves partition [0, covered); at most 4096 bytes may lie outside both the leaves
                                    and their hashes, and are not verified: confirm them from covered bytes */
    uint64_t leaf_size;        /**< bytes a leaf: 65536, the one size that this host signs */
    uint64_t leaf_hashes_offset; /**< where all that leaves gave lies, at or after covered; 0: not stored */
} blyan_encoded;

typedef struct blyan_format_encode {
    uint32_t struct_size;
    uint32_t reserved;
    /** Writes one payload of `count` tensors. options is JSON that the host passes through, e.g.
     *  {"quantise":"int8"}; unknown keys are BLYAN_E_CONFIG. The same input gives the same bytes on every CPU.
     *  sources is an array of pointers. [any-thread] */
    blyan_status (*encode)(void *instance, const blyan_source *const *sources, uint32_t count,
                           blyan_string options, const blyan_sink *sink, blyan_encoded *encoded,
                           blyan_error *error);
} blyan_format_encode;

/* ---- kind: router -------------------------------------------------------------------------- */

#define BLYAN_ROUTER_ROUTE "blyan.router.route/1"
/** In ids: this slot picks no expert; its weight is 0. A row may pick none at all: then the layer's experts add
 *  nothing to it. */
#define BLYAN_NO_EXPERT UINT32_MAX

/** What the checkpoint says of routing. Borrowed. */
typedef struct blyan_router_model {
    uint32_t struct_size;
    uint32_t layers;            /**< layers of the model; those without experts are never routed */
    uint32_t experts;           /**< experts a layer */
    uint32_t experts_per_token; /**< slots k, 1 ... experts */
    uint32_t normalise;         /**< 1: the weights of the picked experts are divided by their sum */
    uint32_t reserved;
} blyan_router_model;

/** One layer of one step for a batch of rows; each row is one token of one request. All arrays are the caller's.
 *  Rows of one request come in the order of their positions. */
typedef struct blyan_route {
    uint32_t struct_size;
    uint32_t layer;
    uint32_t rows;
    uint32_t slots;           /**< k: ids and weights hold rows * slots */
    const float *logits;      /**< rows * experts, as the router matrix gave them */
    void *const *requests;    /**< rows: the request that each row belongs to */
    const uint64_t *positions;/**< rows: the token's position in its request, from 0 */
    uint32_t *ids;            /**< out: distinct expert ids of a row, or BLYAN_NO_EXPERT */
    float *weights;           /**< out: finite, >= 0 */
} blyan_route;

typedef struct blyan_router {
    uint32_t struct_size;
    uint32_t reserved;
    /** Opens the state of one request; *request is the plugin's until close. [any-thread] */
    blyan_status (*open)(void *instance, const blyan_router_model *model, void **request, blyan_error *error);
    /** A second request that continues from the same state, as a copied key/value cache does. The handle is
     *  the request. [serial] */
    blyan_status (*clone)(void *instance, void *request, void **copy, blyan_error *error);
    /** Ends a request. NULL is allowed. The handle is the request. [serial] */
    void (*close)(void *instance, void *request);
    /** One call per layer and step. The result does not depend on how tokens were batched or chunked. The
     *  handles are the requests that it names: calls that share none may run at once. [serial] */
    blyan_status (*route)(void *instance, const blyan_route *route, blyan_error *error);
} blyan_router;

/* ---- kind: gate ---------------------------------------------------------------------------- */

#define BLYAN_GATE_JUDGE "blyan.gate.judge/1"

/** A gate's answer. A fault is a status other than BLYAN_OK, and never a reject. */
enum { BLYAN_VERDICT_ACCEPT = 0, BLYAN_VERDICT_REJECT = 1, BLYAN_VERDICT_DEFER = 2 };

/** What is judged: the bytes that would be stored. Borrowed. Headers and context are canonical JSON. */
typedef struct blyan_candidate {
    uint32_t struct_size;
    uint32_t reserved;
    blyan_string header;            /**< the block header that would be stored */
    const blyan_payload *payload;   /**< the candidate's payload */
    const blyan_payload *parent;    /**< the declared parent's payload, or NULL */
    blyan_string context;           /**< {"author", "candidate", "expert", "model", "parent", "received", "seed"}, hashes and
                                         keys in hex, time in UTC milliseconds: what the verdict may depend on beside the
                                         bytes. With "with", a candidate's part, the gate is asked about the router that
                                         goes with it; losses are those of both together, now and then. "review": true: a
                                         version that stands is judged again; reject if "upper_ppb" is below 0, else accept */
    void *handle;                   /**< what services of the host know the candidate by */
} blyan_candidate;

#define BLYAN_REASON_MAX 63

typedef struct blyan_verdict {
    uint32_t struct_size;
    int32_t verdict;
    uint32_t evidence_length; /**< bytes of evidence that the gate has, also where they did not fit */
    uint32_t reason_length;
    uint64_t evidence_capacity;
    char *evidence;        /**< caller's buffer for a canonical JSON object, 5 levels deep at most: integers in stated units,
                                no floats. A gate that measures improvement gives it as "improvement_ppb", its bounds as
                                "lower_ppb", "upper_ppb" and what the lower must exceed as "delta_ppb": rewards follow */
    char reason[BLYAN_REASON_MAX + 1]; /**< with REJECT and DEFER the gate's own code, [a-z0-9-], not terminated */
} blyan_verdict;

typedef struct blyan_gate {
    uint32_t struct_size;
    uint32_t reserved;
    /** Judges one candidate. The same bytes, context, documents and history give the same verdict and evidence on
     *  every machine. BLYAN_E_CAPACITY: evidence needs evidence_length bytes. [serial] */
    blyan_status (*judge)(void *instance, const blyan_candidate *candidate, blyan_verdict *verdict,
                          blyan_error *error);
} blyan_gate;

/* ---- host service: tensors of a candidate --------------------------------------------------- */

#define BLYAN_HOST_TENSORS "blyan.host.tensors/1"
/** Whose numbers are asked for; from BLYAN_SUBJECT_PART on, the parts that BLYAN_HOST_HISTORY counts. */
enum { BLYAN_SUBJECT_PARENT = 0, BLYAN_SUBJECT_CANDIDATE = 1, BLYAN_SUBJECT_PART = 2 };

/** Numbers of candidate, parent and other parts, through the format that their payloads have. Static. */
typedef struct blyan_tensors {
    uint32_t struct_size;
    uint32_t reserved;
    /** Names, shapes and stored dtypes of a subject's tensors, as blyan_format_view.describe. BLYAN_E_ARGUMENT for a
     *  subject that is not there. [any-thread] */
    blyan_status (*list)(const blyan_candidate *candidate, uint32_t subject, blyan_tensor *tensors,
                         uint32_t capacity, uint32_t *count, blyan_error *error);
    /** Rows [row_begin, row_end) of tensor number `index` as f32, as blyan_format_decode.decode. [any-thread] */
    blyan_status (*decode)(const blyan_candidate *candidate, uint32_t subject, uint32_t index,
                           uint64_t row_begin, uint64_t row_end, float *out, blyan_error *error);
} blyan_tensors;

/* ---- host service: evaluation on held-out text ----------------------------------------------- */

#define BLYAN_HOST_EVALUATE "blyan.host.evaluate/1"
/** How losses are computed. FAST and REFERENCE agree within rounding; REFERENCE has the same bits on every machine. */
enum { BLYAN_PATH_FAST = 0, BLYAN_PATH_REFERENCE = 1 };

#define BLYAN_SLICE_MAX 63
/** One held-out document of a candidate's draw. */
typedef struct blyan_document {
    uint64_t line;   /**< its line in the shard, from 0 */
    uint32_t tokens; /**< tokens that are predicted, at least 1 */
    uint32_t slice_length;
    char slice[BLYAN_SLICE_MAX + 1]; /**< its domain or language, as the pool labels it, not terminated */
} blyan_document;

/** The model with and without the candidate, on text that was drawn after the candidate's hash was committed. Static. */
typedef struct blyan_evaluate {
    uint32_t struct_size;
    uint32_t reserved;
    /** The first `wanted` documents of the draw, fewer if the shard has no more; *count = how many. The order is
     *  random, and the same for every gate. documents holds `wanted`. BLYAN_E_UNSUPPORTED if the node has no held-out
     *  text left: a reason to defer. [any-thread] */
    blyan_status (*documents)(const blyan_candidate *candidate, uint64_t wanted, blyan_document *documents,
                              uint64_t *count, blyan_error *error);
    /** The summed loss of each of the documents [begin, end) of the draw, in micro-nats, to micro_nats, which holds
     *  end - begin. BLYAN_E_MALFORMED if a loss is not finite. [any-thread] */
    blyan_status (*losses)(const blyan_candidate *candidate, uint32_t subject, uint32_t path, uint64_t begin,
                           uint64_t end, int64_t *micro_nats, blyan_error *error);
} blyan_evaluate;

/* ---- host service: what was judged before ---------------------------------------------------- */

#define BLYAN_HOST_HISTORY "blyan.host.history/1"

#define BLYAN_PART_NAME_MAX 127

/** An expert, a router or a shared expert that some version of some model has. */
typedef struct blyan_part {
    uint32_t struct_size;
    uint32_t name_length;
    uint8_t block[32];    /**< the hash of its block */
    uint8_t previous[32]; /**< the block that it replaced; of a first version a hash that no part has */
    char name[BLYAN_PART_NAME_MAX + 1]; /**< "layer4.expert7", not terminated */
} blyan_part;

/** What stood on the chain before a judgement: the same for everybody who judges again. The history of a later judgement of
 *  the same instance begins with that of an earlier one, except where an old verdict is audited: then it is shorter. Static. */
typedef struct blyan_history {
    uint32_t struct_size;
    uint32_t reserved;
    /** How many verdicts and parts there are. [any-thread] */
    blyan_status (*count)(const blyan_candidate *candidate, uint64_t *verdicts, uint64_t *parts, blyan_error *error);
    /** Verdict number `index`, oldest first, as canonical JSON: {"block": the candidate's signed header, "candidate":
     *  its hash, "evidence": [{"gate", "part", "evidence"}], "outcome", "reason", "received"}, with the evidence of the gates
     *  that `gates` names, separated by spaces. *length = its bytes; BLYAN_E_CAPACITY if there is no room. [any-thread] */
    blyan_status (*verdict)(const blyan_candidate *candidate, uint64_t index, blyan_string gates, char *json,
                            uint64_t capacity, uint64_t *length, blyan_error *error);
    /** Part number `index`, in the order in which they joined. Its numbers: subject BLYAN_SUBJECT_PART + index of
     *  BLYAN_HOST_TENSORS. [any-thread] */
    blyan_status (*part)(const blyan_candidate *candidate, uint64_t index, blyan_part *part, blyan_error *error);
} blyan_history;

/* ---- host service: what a candidate says ------------------------------------------------------ */
#define BLYAN_HOST_PROBE "blyan.host.probe/1"
enum { BLYAN_PROMPT_TOKENS = 256, BLYAN_SAID_TOKENS = 32 }; /**< at most, of a prompt and after it */
/** What the model is to go on from: text as a prompt is tokenised, or behind the beginning of a document. */
typedef struct blyan_prompt {
    uint64_t document, beginning; /**< a document's number in the draw, UINT64_MAX = none; and how many of its tokens */
    blyan_string text;            /**< UTF-8; may be empty behind a document */
} blyan_prompt;
/** What the candidate said: the loss of its words in micro-nats, tokens that were run, and how many of them it served. */
typedef struct blyan_said {
    int64_t candidate_unat, lineage_unat; /**< by the model with the candidate, and without it */
    uint32_t run, served; /**< of the prompt and all that was said but the last; a part that is no expert serves all */
} blyan_said;
/** The model with the candidate, speaking, and what the model without it thinks of that: exact, the same everywhere. Static. */
typedef struct blyan_probe {
    uint32_t struct_size, reserved;
    /** Continues each of `count` prompts greedily by `tokens` tokens, past any that ends a text. words holds count * tokens
     *  ids. BLYAN_E_UNSUPPORTED: no held-out text; BLYAN_E_ARGUMENT: a prompt that is empty, too long, no UTF-8. [any-thread] */
    blyan_status (*run)(const blyan_candidate *candidate, const blyan_prompt *prompts, uint64_t count,
                        uint32_t tokens, blyan_said *said, uint32_t *words, blyan_error *error);
} blyan_probe;

/* ---- kind: reward -------------------------------------------------------------------------- */

#define BLYAN_REWARD_SETTLE "blyan.reward.settle/1"

/** What a policy works from: nothing else, and nothing but signed facts. Borrowed. Both are canonical JSON (RFC 8785)
 *  without floats; integers lie within +-(2^53 - 1).
 *
 *  config is an object, valid by config_schema: that of the policy block on chain which governs, and so not always that
 *  of the manifest. An amount thus follows from signed blocks alone, whoever computes it, and when.
 *
 *  events is an array of objects with a text "kind". A policy pays nothing for kinds that it does not know, and nothing
 *  for an event that is not as below.
 *
 *    {"kind":"accepted", "author", "delta_ppb", "improvement_ppb", "lineage", "lower_ppb"}
 *      A candidate was accepted as a new version. author: its account. lineage: accounts of the versions that it
 *      stands on, nearest first, without the import. improvement_ppb, lower_ppb, delta_ppb: mean and lower bound of the
 *      improvement and what the bound had to exceed, in billionths of the loss, as the gates' evidence has them; 0 if no
 *      gate measured.
 *    {"kind":"usage", "author", "calls", "last_use", "milliseconds", "payers", "quality_ppm", "time"}
 *      A version was used. author: its account. calls: requests that it served and that another account paid for;
 *      milliseconds: how long they took in all; payers: accounts that paid; quality_ppm: the version's proven
 *      improvement in millionths; last_use, time: when it was used last, and when the use was counted, UTC milliseconds. */
typedef struct blyan_settlement {
    uint32_t struct_size;
    uint32_t reserved;
    blyan_string config;
    blyan_string events;
} blyan_settlement;

/** One payment in micro-BLY. */
typedef struct blyan_payment {
    uint32_t struct_size;
    uint32_t event;    /**< the event that it pays for, from 0 */
    int64_t amount;    /**< 1 ... 10^15: a policy that pays more at once, a billion BLY, has failed */
    int64_t vesting;   /**< usage and reward blocks over which it vests in equal steps, 0 ... 10000000; 0: at once */
    char account[72];  /**< a compressed public key in hex: 66 digits, then zeros */
} blyan_payment;

typedef struct blyan_reward {
    uint32_t struct_size;
    uint32_t reserved;
    /** The payments that follow from events, in order of the events. Fills payments[0 ..< min(capacity, n)] and sets
     *  *count = n; the array is the caller's, each element's struct_size is set by the caller. Deterministic: the same
     *  settlement gives the same payments on every machine; no clock, no randomness, no floats, no state.
     *  BLYAN_E_CAPACITY if capacity < n; BLYAN_E_MALFORMED for bytes that are no such JSON; BLYAN_E_CONFIG for a
     *  configuration that the schema does not allow. [serial] */
    blyan_status (*settle)(void *instance, const blyan_settlement *settlement, blyan_payment *payments,
                           uint32_t capacity, uint32_t *count, blyan_error *error);
} blyan_reward;

/* ---- the entry ----------------------------------------------------------------------------- */

enum {
    BLYAN_KIND_FORMAT = 1,
    BLYAN_KIND_GATE = 2,
    BLYAN_KIND_ROUTER = 3,
    BLYAN_KIND_REWARD = 4
};

/** A plugin. Static; everything it points at is static. */
typedef struct blyan_plugin {
    uint64_t magic;         /**< BLYAN_PLUGIN_MAGIC */
    uint32_t struct_size;
    uint16_t abi_major;     /**< BLYAN_ABI_MAJOR of the header it was built with; the host's must be equal */
    uint16_t abi_minor;     /**< BLYAN_ABI_MINOR it needs; the host's must not be lower */
    uint32_t kind;
    uint32_t reserved;
    const char *name;       /**< zero-terminated, [a-z0-9-]{1,64}, as in the manifest */
    const char *version;    /**< zero-terminated SemVer, as in the manifest */
    const char *config_schema; /**< zero-terminated JSON Schema (object) of its configuration */

    /** Makes an instance. host is static. config: JSON object, already valid by config_schema, borrowed.
     *  *instance is the plugin's until destroy. [setup] */
    blyan_status (*create)(const blyan_host *host, blyan_string config, void **instance, blyan_error *error);
    /** Ends an instance that has no call under way. NULL is allowed. [setup] */
    void (*destroy)(void *instance);
    /** Checks itself on data of its own in under a second; called before the instance serves. [setup] */
    blyan_status (*self_test)(void *instance, blyan_error *error);
    /** A table by ability id (static), or NULL. id is borrowed and zero-terminated. [any-thread] */
    const void *(*get_ability)(void *instance, const char *id);
} blyan_plugin;

/** The one exported symbol: returns the static description; does nothing else. [any-thread] */
typedef const blyan_plugin *(*blyan_plugin_entry_fn)(void);

#ifdef __cplusplus
}
#endif
#endif
