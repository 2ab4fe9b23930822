/* Asserts the layout of every struct in blyan_plugin.h on 64-bit machines: an accidental change does not compile. */
#include "blyan_plugin.h"

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " changed its size")
#define AT(type, field, bytes) _Static_assert(offsetof(type, field) == (bytes), #type "." #field " moved")

SIZE(blyan_error, 520);
SIZE(blyan_bytes, 16);
SIZE(blyan_string, 16);
SIZE(blyan_host, 56);
SIZE(blyan_tensor, 224);
AT(blyan_tensor, rows, 16);
AT(blyan_tensor, data_offset, 40);
AT(blyan_tensor, name_length, 88);
AT(blyan_tensor, name, 92);
SIZE(blyan_payload, 32);
SIZE(blyan_math, 24);
SIZE(blyan_format_view, 16);
SIZE(blyan_format_decode, 24);
SIZE(blyan_compute, 88);
SIZE(blyan_format_compute, 16);
SIZE(blyan_source, 72);
SIZE(blyan_sink, 32);
SIZE(blyan_encoded, 32);
SIZE(blyan_format_encode, 16);
SIZE(blyan_router_model, 24);
SIZE(blyan_route, 56);
SIZE(blyan_router, 40);
SIZE(blyan_candidate, 64);
SIZE(blyan_verdict, 96);
AT(blyan_verdict, evidence, 24);
SIZE(blyan_gate, 16);
SIZE(blyan_tensors, 24);
SIZE(blyan_document, 80);
AT(blyan_document, slice, 16);
SIZE(blyan_evaluate, 24);
SIZE(blyan_settlement, 40);
SIZE(blyan_payment, 96);
AT(blyan_payment, account, 24);
SIZE(blyan_reward, 16);
SIZE(blyan_plugin, 80);
AT(blyan_plugin, name, 24);
AT(blyan_plugin, create, 48);
