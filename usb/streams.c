/* SPDX-License-Identifier: MIT
 *
 * Bulk streams (USB 3.2, 8.12.1.4): several queues in one bulk endpoint, which UAS disks are faster
 * with. The guest has them allocated and freed for sets of endpoints; both are requests to the
 * device, like an altsetting. A bulk packet names its stream, 1 to the number allocated, exactly
 * while its endpoint has streams. A reset, another configuration or altsetting ends them unasked.
 */
#include "usb/engine-internal.h"

/* The address of the endpoint at a slot. */
static uint8_t address(unsigned int slot)
{
	return (uint8_t)((slot & 16 ? 0x80 : 0) | (slot & 0x0f));
}

bool streams_valid(const struct engine *e, uint8_t endpoint, uint32_t stream_id)
{
	uint16_t n = e->streams[descriptors_slot(endpoint)];

	return n == 0 ? stream_id == 0 : stream_id >= 1 && stream_id <= n;
}

void streams_forget(struct engine *e, int interface)
{
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		if (interface < 0 || e->descriptors.active[slot].interface == interface) {
			e->streams[slot] = 0;
		}
	}
}

/* Whether every endpoint of the mask can get so many. */
static bool can_alloc(const struct engine *e, uint32_t endpoints, uint32_t n_streams)
{
	if (!e->backend->ops->alloc_streams || endpoints == 0 || n_streams == 0) {
		return false;
	}
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		/* Receiving goes on without streams, and isn't what has them. */
		if (endpoints & 1u << slot &&
			(n_streams > e->descriptors.active[slot].max_streams ||
				(engine_guarded(e, address(slot)) &&
					!(guard_streamed(e->guard) >> slot & 1)) ||
				e->streams[slot] > 0 || e->receiving[slot].started)) {
			return false;
		}
	}
	return true;
}

static void refuse(struct engine *e, uint64_t id, uint32_t endpoints, uint32_t n_streams)
{
	e->count.refused++;
	redir_send_streams_status(e->redir, id, TRANSFER_INVALID, endpoints, n_streams);
}

/* What is under way on these endpoints belongs to what they were before. */
static void cancel(struct engine *e, uint32_t endpoints)
{
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		if (endpoints & 1u << slot) {
			engine_data_cancel_all(e, -1, address(slot));
		}
	}
}

void streams_alloc(void *userdata, uint64_t id, uint32_t endpoints, uint32_t n_streams)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!can_alloc(e, endpoints, n_streams)) {
		refuse(e, id, endpoints, n_streams);
		return;
	}
	engine_control_begin(e, ENGINE_REQUEST_ALLOC_STREAMS, id);
	e->request_endpoints = endpoints;
	e->request_streams = n_streams;
	cancel(e, endpoints);
	e->backend->ops->alloc_streams(e->backend, endpoints, n_streams);
}

void streams_free(void *userdata, uint64_t id, uint32_t endpoints)
{
	struct engine *e = userdata;
	uint32_t allocated = 0;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		if (endpoints & 1u << slot && e->streams[slot] > 0) {
			allocated |= 1u << slot;
		} else if (endpoints & 1u << slot && e->descriptors.active[slot].max_streams == 0) {
			refuse(e, id, endpoints, 0);
			return;
		}
	}
	if (allocated == 0) {
		/* An altsetting took them already. */
		redir_send_streams_status(e->redir, id, TRANSFER_OK, endpoints, 0);
		return;
	}
	engine_control_begin(e, ENGINE_REQUEST_FREE_STREAMS, id);
	e->request_endpoints = endpoints;
	e->request_streams = 0;
	cancel(e, allocated);
	e->backend->ops->free_streams(e->backend, allocated);
}

void streams_done(struct engine *e, enum engine_request request, enum transfer_status status)
{
	if (status == TRANSFER_OK) {
		for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
			if (e->request_endpoints & 1u << slot) {
				e->streams[slot] = (uint16_t)e->request_streams;
			}
		}
	}
	redir_send_streams_status(
		e->redir, e->request_id, status, e->request_endpoints, e->request_streams);
}
