/* SPDX-License-Identifier: MIT */
#include "tests/unit/fake-virgl.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

/* As with the real one, there is one of it in a process. */
struct fake_virgl *fake_virgl(void)
{
	static struct fake_virgl f;

	return &f;
}

static int refused(int error)
{
	return fake_virgl()->refuse ? error : 0;
}

static int init(const struct virgl_options *options, char renderer_out[VIRGL_RENDERER_NAME_SIZE])
{
	fake_virgl()->options = *options;
	memcpy(renderer_out, "fake", 5);
	return 0;
}

static void finish(void)
{
}

static int poll_fd(void)
{
	return -1;
}

static void poll_events(void)
{
	struct fake_virgl *f = fake_virgl();

	f->polls++;
	if (f->options.fence && f->reached) {
		f->options.fence(f->options.userdata, f->reached);
	}
}

static void capset_info(uint32_t id, uint32_t *version_out, uint32_t *size_out)
{
	*version_out = id == 1 || id == 2 ? id : 0;
	*size_out = id == 1 ? 308 : id == 2 ? 1376 : 0;
}

static void capset_fill(uint32_t id, uint32_t version, void *out, uint32_t size)
{
	(void)version;
	memset(out, (int)id, size);
}

static int context_create(uint32_t context, uint32_t flags, const char *name, uint32_t name_length)
{
	(void)context;
	(void)flags;
	(void)name;
	(void)name_length;
	fake_virgl()->contexts += !fake_virgl()->refuse;
	return refused(-EIO);
}

static void context_destroy(uint32_t context)
{
	(void)context;
	fake_virgl()->contexts--;
}

static int resource_create(const struct virgl_resource *r)
{
	(void)r;
	fake_virgl()->resources += !fake_virgl()->refuse;
	return refused(-EINVAL);
}

static void resource_unref(uint32_t id)
{
	(void)id;
	fake_virgl()->resources--;
}

static int resource_attach(uint32_t id, const struct iovec *iov, uint32_t n)
{
	(void)id;
	(void)iov;
	(void)n;
	fake_virgl()->backed++;
	return 0;
}

static void resource_detach(uint32_t id)
{
	(void)id;
	fake_virgl()->backed--;
}

static void context_attach(uint32_t context, uint32_t id)
{
	(void)context;
	(void)id;
	fake_virgl()->attached++;
}

static void context_detach(uint32_t context, uint32_t id)
{
	(void)context;
	(void)id;
	fake_virgl()->attached--;
}

static int transfer_write(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n)
{
	(void)t;
	for (uint32_t i = 0; i < n; i++) {
		fake_virgl()->pattern = *(const uint8_t *)iov[i].iov_base;
	}
	fake_virgl()->writes++;
	return refused(-EINVAL);
}

static int transfer_read(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n)
{
	struct fake_virgl *f = fake_virgl();

	(void)t;
	for (uint32_t i = 0; i < n && !f->refuse; i++) {
		memset(iov[i].iov_base, f->pattern,
			iov[i].iov_len - MIN(iov[i].iov_len, f->read_short));
	}
	f->reads++;
	return refused(-EINVAL);
}

static int submit(uint32_t context, uint32_t *dwords, uint32_t n)
{
	(void)context;
	fake_virgl()->submits++;
	fake_virgl()->last_words = n;
	fake_virgl()->first_word = dwords[0];
	return refused(-EINVAL);
}

static int fence(uint32_t number, uint32_t context)
{
	(void)context;
	fake_virgl()->fences = number;
	return refused(-EIO);
}

const struct virgl_ops fake_virgl_ops = {
	.init = init,
	.finish = finish,
	.poll_fd = poll_fd,
	.poll = poll_events,
	.capset_info = capset_info,
	.capset_fill = capset_fill,
	.context_create = context_create,
	.context_destroy = context_destroy,
	.resource_create = resource_create,
	.resource_unref = resource_unref,
	.resource_attach = resource_attach,
	.resource_detach = resource_detach,
	.context_attach = context_attach,
	.context_detach = context_detach,
	.transfer_write = transfer_write,
	.transfer_read = transfer_read,
	.submit = submit,
	.fence = fence,
};
