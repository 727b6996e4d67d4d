/* SPDX-License-Identifier: MIT */
#include "tests/unit/gpu-fake-3d.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define NOBODY UINT32_MAX
#define XR24   0x34325258

struct fake_3d fake;

static int refused(void)
{
	int r = fake.refuse;

	fake.refuse = 0;
	return r;
}

static uint32_t find_resource(uint32_t id)
{
	for (uint32_t i = 0; i < fake.n_resources; i++) {
		if (fake.resources[i].id == id) {
			return i;
		}
	}
	return NOBODY;
}

static uint32_t find_context(uint32_t id)
{
	for (uint32_t i = 0; i < fake.n_contexts; i++) {
		if (fake.contexts[i] == id) {
			return i;
		}
	}
	return NOBODY;
}

static int fake_init(
	const struct virgl_options *options, char renderer_out[VIRGL_RENDERER_NAME_SIZE])
{
	strcpy(renderer_out, "fake");
	return 0;
}

static void fake_finish(void)
{
}

static int fake_poll_fd(void)
{
	return -1;
}

static void fake_poll(void)
{
}

static void fake_capset_info(uint32_t id, uint32_t *version_out, uint32_t *size_out)
{
	*version_out = id == 1 ? 1 : id == 2 ? 2 : 0;
	*size_out = id == 1 ? 308 : id == 2 ? 1376 : 0;
}

static void fake_capset_fill(uint32_t id, uint32_t version, void *out, uint32_t size)
{
	assert(size == (id == 1 ? 308 : 1376));
	memset(out, 0xff, size);
	if (id == 2 && fake.limits.side) {
		memcpy((uint8_t *)out + 268, &fake.limits.layers, 4);
		memcpy((uint8_t *)out + 284, &fake.limits.samples, 4);
		memcpy((uint8_t *)out + 484, &fake.limits.side, 4);
		memcpy((uint8_t *)out + 488, &fake.limits.side_3d, 4);
		memcpy((uint8_t *)out + 492, &fake.limits.side_cube, 4);
	}
}

static int fake_context_create(
	uint32_t context, uint32_t flags, const char *name, uint32_t name_length)
{
	int r = refused();

	assert(context != 0 && find_context(context) == NOBODY && name_length <= 64);
	if (r == 0) {
		assert(fake.n_contexts < FAKE_3D_MAX);
		fake.contexts[fake.n_contexts++] = context;
	}
	return r;
}

static void fake_context_destroy(uint32_t context)
{
	uint32_t i = find_context(context);

	assert(i != NOBODY);
	fake.contexts[i] = fake.contexts[--fake.n_contexts];
}

static int fake_resource_create(const struct virgl_resource *r)
{
	int refuse = refused();

	assert(r->id != 0 && find_resource(r->id) == NOBODY && virgl_resource_bytes(r) > 0);
	if (refuse == 0) {
		assert(fake.n_resources < FAKE_3D_MAX);
		fake.iov[fake.n_resources] = NULL;
		fake.resources[fake.n_resources++] = *r;
	}
	return refuse;
}

static int fake_resource_create_blob(
	const struct virgl_blob *b, const struct iovec *iov, uint32_t n)
{
	return -ENOTSUP;
}

static void fake_resource_unref(uint32_t id)
{
	uint32_t i = find_resource(id), last = fake.n_resources - 1;

	assert(i != NOBODY && !fake.iov[i]);
	fake.resources[i] = fake.resources[last];
	fake.iov[i] = fake.iov[last];
	fake.n_iov[i] = fake.n_iov[last];
	fake.n_resources--;
}

static int fake_resource_attach(uint32_t id, const struct iovec *iov, uint32_t n)
{
	uint32_t i = find_resource(id);
	int r = refused();

	assert(i != NOBODY && !fake.iov[i]);
	if (r == 0) {
		fake.iov[i] = iov;
		fake.n_iov[i] = n;
	}
	return r;
}

static void fake_resource_detach(uint32_t id)
{
	uint32_t i = find_resource(id);

	assert(i != NOBODY && fake.iov[i]);
	fake.iov[i] = NULL;
}

static void fake_context_attach(uint32_t context, uint32_t id)
{
	assert(find_context(context) != NOBODY && find_resource(id) != NOBODY);
	fake.n_attached++;
}

static void fake_context_detach(uint32_t context, uint32_t id)
{
	assert(find_context(context) != NOBODY && find_resource(id) != NOBODY);
	fake.n_attached--;
}

/* Reads or writes each byte that a transfer may touch, where it is. */
static void touch(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n, bool write)
{
	uint32_t i = find_resource(t->id);
	uint64_t bytes, at = 0, begin = t->offset, end;
	volatile uint8_t *p;

	assert(i != NOBODY && (t->context == 0 || find_context(t->context) != NOBODY));
	bytes = virgl_transfer_bytes(&fake.resources[i], t);
	end = begin + bytes;
	assert(bytes > 0 && end > begin);
	if (!iov) {
		iov = fake.iov[i];
		n = fake.n_iov[i];
	}
	for (uint32_t k = 0; k < n; k++) {
		for (uint64_t b = 0; b < iov[k].iov_len; b++, at++) {
			p = (uint8_t *)iov[k].iov_base + b;
			if (at >= begin && at < end && write) {
				*p = (uint8_t)(fake.pixel >> (at % 4 * 8));
			} else if (at >= begin && at < end) {
				_unused_ uint8_t byte = *p;
			}
		}
	}
	assert(at >= end);
	fake.transfer = *t;
}

static int fake_transfer_write(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n)
{
	fake.n_writes++;
	touch(t, iov, n, false);
	return refused();
}

static int fake_transfer_read(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n)
{
	fake.n_reads++;
	touch(t, iov, n, true);
	return refused();
}

static int fake_submit(uint32_t context, uint32_t *dwords, uint32_t n)
{
	assert(find_context(context) != NOBODY && n > 0);
	fake.n_submits++;
	fake.taken += fake.takes;
	fake.n_dwords = n;
	fake.first_dword = dwords[0];
	fake.submitted_to = context;
	/* All of it is there. */
	dwords[n - 1] ^= 1;
	return refused();
}

static int fake_fence(uint32_t fence, uint32_t context)
{
	int r = refused();

	if (r == 0) {
		fake.n_fences++;
		fake.fence = fence;
		fake.fence_context = context;
	}
	return r;
}

static int fake_context_fence(uint32_t context, uint32_t ring, uint64_t fence)
{
	assert(find_context(context) != NOBODY);
	fake.ring_context = context;
	fake.ring = ring;
	fake.ring_fence = fence;
	return refused();
}

static int fake_resource_export(uint32_t id, int *fd_out, uint32_t *fourcc_out,
	uint32_t *stride_out, uint32_t *offset_out, uint64_t *modifier_out)
{
	uint32_t i = find_resource(id);

	assert(i != NOBODY);
	fake.n_exports++;
	if (!fake.exports) {
		return -ENOTSUP;
	}
	fake.exported = memfd_create("dmabuf", MFD_CLOEXEC);
	assert(fake.exported >= 0);
	*fd_out = fake.exported;
	*fourcc_out = XR24;
	*stride_out = fake.stride ? fake.stride : fake.resources[i].width * 4;
	*offset_out = fake.offset;
	*modifier_out = fake.modifier;
	return 0;
}

const struct virgl_ops fake_3d_ops = {
	.init = fake_init,
	.finish = fake_finish,
	.poll_fd = fake_poll_fd,
	.poll = fake_poll,
	.capset_info = fake_capset_info,
	.capset_fill = fake_capset_fill,
	.context_create = fake_context_create,
	.context_destroy = fake_context_destroy,
	.resource_create = fake_resource_create,
	.resource_create_blob = fake_resource_create_blob,
	.resource_unref = fake_resource_unref,
	.resource_attach = fake_resource_attach,
	.resource_detach = fake_resource_detach,
	.context_attach = fake_context_attach,
	.context_detach = fake_context_detach,
	.transfer_write = fake_transfer_write,
	.transfer_read = fake_transfer_read,
	.submit = fake_submit,
	.fence = fake_fence,
	.context_fence = fake_context_fence,
	.resource_export = fake_resource_export,
};
