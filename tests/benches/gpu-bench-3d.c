/* SPDX-License-Identifier: MIT
 * One cell of tests/bench gpu-3d:
 *
 *   gpu-bench-3d replay RECORDING SOCKET PID   a recording through a server of vtest, which is PID
 *   gpu-bench-3d replay RECORDING              the same in this process: no protocol, no other one
 *   gpu-bench-3d play RECORDING BACKEND [OPTION...]  the same by a guest, over vhost-user
 *   gpu-bench-3d clear N SOCKET PID            N times one small clear, and its fence is waited for
 *   gpu-bench-3d clear N vhost BACKEND [OPTION...]  the same by a guest
 *
 * Prints a JSON object. This process runs on one CPU and the server on the other; in-process all
 * runs on the server's.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "gpu/virgl.h"
#include "protocol/vtest.h"
#include "tests/benches/gpu-bench.h"
#include "tests/gpu/sim-3d.h"

#define CONTEXT  1
#define DATA_MAX (64U << 20)

/* What takes requests: a server, or the renderer itself. */
struct target {
	int fd; /* -1: in this process */
	struct sim_backend server;
	uint32_t fence_made, fence_reached;
	uint8_t *data;     /* what is read back */
	uint8_t *commands; /* copied here before they are run */
};

struct recording {
	const uint8_t *at, *end;
	uint32_t n; /* requests, so far */
};

struct request {
	struct vtest_header h;
	const uint8_t *all; /* header, body and data */
	const uint8_t *body;
	size_t size;
	uint32_t data;
};

static void open_recording(struct recording *r, const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
		bench_fail("no recording");
	}
	r->at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (r->at == MAP_FAILED) {
		bench_fail("the recording can't be read");
	}
	r->end = r->at + st.st_size;
	r->n = 0;
}

static bool next_request(struct recording *r, struct request *q)
{
	size_t left = (size_t)(r->end - r->at);
	struct vtest_transfer t;

	if (left < VTEST_HEADER_SIZE) {
		return false;
	}
	*q = (struct request){.all = r->at, .body = r->at + VTEST_HEADER_SIZE};
	if (vtest_header_decode(r->at, 0, &q->h) < 0) {
		bench_fail("the recording has a request that there is not");
	}
	q->size = (size_t)VTEST_HEADER_SIZE + q->h.body;
	if (q->size <= left && q->h.id == VTEST_TRANSFER_PUT) {
		vtest_transfer_decode(&q->h, q->body, &t);
		q->data = t.data;
		q->size += t.data;
	}
	if (q->size > left) {
		return false; /* the program was ended in the middle of it */
	}
	r->at += q->size;
	r->n++;
	return true;
}

static void receive(const struct target *t, void *to, size_t n)
{
	uint8_t *p = to;

	while (n > 0) {
		ssize_t got = recv(t->fd, p, n, 0);

		if (got <= 0) {
			bench_fail("the server has gone");
		}
		p += got;
		n -= (size_t)got;
	}
}

static void send_all(const struct target *t, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n > 0) {
		ssize_t sent = send(t->fd, p, n, MSG_NOSIGNAL);

		if (sent <= 0) {
			bench_fail("the server has gone");
		}
		p += sent;
		n -= (size_t)sent;
	}
}

/* FNV-1a. */
static uint32_t hash_of(const uint8_t *data, size_t n)
{
	uint32_t hash = 2166136261;

	for (size_t i = 0; i < n; i++) {
		hash = (hash ^ data[i]) * 16777619;
	}
	return hash;
}

/* The answer to a request, which is read and forgotten; of data, how much. */
static size_t take_answer(struct target *t, const struct request *q)
{
	uint8_t head[VTEST_HEADER_SIZE];
	struct vtest_transfer transfer;

	switch (q->h.id) {
	case VTEST_TRANSFER_GET:
		vtest_transfer_decode(&q->h, q->body, &transfer);
		receive(t, t->data, MIN(transfer.data, DATA_MAX));
		return transfer.data;
	case VTEST_GET_CAPS:
	case VTEST_GET_CAPS2:
		receive(t, head, sizeof(head));
		receive(t, t->data, MIN(vtest_word(head, 0) - 1, DATA_MAX));
		return 0;
	case VTEST_BUSY_WAIT:
	case VTEST_VERSION:
		receive(t, head, sizeof(head));
		receive(t, head, sizeof(uint32_t));
		return 0;
	case VTEST_PING_VERSION:
		receive(t, head, sizeof(head));
		return 0;
	default:
		return 0;
	}
}

static void must(int r)
{
	if (r < 0) {
		bench_fail("the renderer refused a request of the recording");
	}
}

static void reached(void *userdata, uint32_t fence)
{
	((struct target *)userdata)->fence_reached = fence;
}

static void wait_here(struct target *t)
{
	must(virgl_renderer.fence(++t->fence_made, CONTEXT));
	while (t->fence_reached != t->fence_made) {
		struct pollfd p = {.fd = virgl_renderer.poll_fd(), .events = POLLIN};

		virgl_renderer.poll();
		if (t->fence_reached != t->fence_made) {
			poll(&p, 1, p.fd >= 0 ? -1 : 1);
		}
	}
}

static void transfer_here(struct target *t, const struct request *q)
{
	struct iovec iov;
	struct vtest_transfer w;
	struct virgl_transfer v;

	vtest_transfer_decode(&q->h, q->body, &w);
	v = (struct virgl_transfer){w.id, CONTEXT, w.level, w.stride, w.layer_stride,
		{w.x, w.y, w.z, w.width, w.height, w.depth}, 0};
	if (q->h.id == VTEST_TRANSFER_GET) {
		iov = (struct iovec){t->data, MIN(w.data, DATA_MAX)};
		must(virgl_renderer.transfer_read(&v, &iov, 1));
	} else {
		iov = (struct iovec){(void *)(uintptr_t)(q->body + q->h.body), w.data};
		must(virgl_renderer.transfer_write(&v, &iov, 1));
	}
}

static void create_here(const struct request *q)
{
	struct vtest_resource w;

	vtest_resource_decode(&q->h, q->body, &w);
	must(virgl_renderer.resource_create(&(struct virgl_resource){w.id, w.target, w.format,
		w.bind, w.width, w.height, w.depth, w.array_size, w.last_level, w.nr_samples, 0}));
	virgl_renderer.context_attach(CONTEXT, w.id);
}

static void do_here(struct target *t, const struct request *q)
{
	switch (q->h.id) {
	case VTEST_CREATE_RENDERER:
		must(virgl_renderer.context_create(CONTEXT, 0, "bench", 5));
		break;
	case VTEST_RESOURCE_CREATE:
		create_here(q);
		break;
	case VTEST_RESOURCE_UNREF:
		virgl_renderer.context_detach(CONTEXT, vtest_word(q->body, 0));
		virgl_renderer.resource_unref(vtest_word(q->body, 0));
		break;
	case VTEST_TRANSFER_GET:
	case VTEST_TRANSFER_PUT:
		transfer_here(t, q);
		break;
	case VTEST_SUBMIT:
		/* As every backend does it: the guest's, or the client's, is not what is run. */
		memcpy(t->commands, q->body, MIN(q->h.body, DATA_MAX));
		must(virgl_renderer.submit(CONTEXT, (uint32_t *)(void *)t->commands, q->h.length));
		break;
	case VTEST_BUSY_WAIT:
		wait_here(t);
		break;
	default:
		break;
	}
}

static void connect_to(struct target *t, const char *path, const char *pid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	t->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	t->server = (struct sim_backend){.pid = (pid_t)atoi(pid), .pidfd = -1, .vhost = -1};
	if (t->fd < 0 || strlen(path) >= sizeof(addr.sun_path)) {
		bench_fail("bad arguments");
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(t->fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		bench_fail("no server");
	}
}

static void start_here(struct target *t)
{
	const struct virgl_options o = {.drm_fd = -1, .fence = reached, .userdata = t};
	char name[VIRGL_RENDERER_NAME_SIZE];

	t->fd = -1;
	if (virgl_renderer.init(&o, name) < 0) {
		bench_fail("no renderer");
	}
}

static uint64_t cpu_of(const struct target *t)
{
	return t->fd < 0 ? clock_ns(CLOCK_PROCESS_CPUTIME_ID) : sim_backend_cpu_ns(&t->server);
}

static double rss_of(const struct target *t)
{
	struct sim_backend self = {.pid = getpid(), .pidfd = -1, .vhost = -1};

	return (double)sim_backend_rss(t->fd < 0 ? &self : &t->server) / (1 << 20);
}

static bool replay_one(struct target *t, struct recording *r, size_t *read_out)
{
	struct request q;

	if (!next_request(r, &q)) {
		return false;
	}
	if (t->fd < 0) {
		do_here(t, &q);
		*read_out = q.h.id == VTEST_TRANSFER_GET ? vtest_word(q.body, 10) : 0;
	} else {
		send_all(t, q.all, q.size);
		*read_out = take_answer(t, &q);
	}
	return true;
}

/* Until everything is drawn. */
static void finish_replay(struct target *t)
{
	static const uint32_t wait[] = {2, VTEST_BUSY_WAIT, 1, 1};
	uint8_t answer[VTEST_HEADER_SIZE + 4];

	if (t->fd < 0) {
		wait_here(t);
		return;
	}
	send_all(t, wait, sizeof(wait));
	receive(t, answer, sizeof(answer));
}

static void replay(struct target *t, const char *path)
{
	struct recording r;
	uint64_t begin, cpu;
	size_t read, last = 0;
	double idle, seconds;

	open_recording(&r, path);
	/* The greeting, until the renderer is there: that is not measured. */
	while (r.at[4] != VTEST_GET_CAPS && replay_one(t, &r, &read)) {
	}
	_unused_ bool caps = replay_one(t, &r, &read);
	idle = rss_of(t);
	begin = now_ns();
	cpu = cpu_of(t);
	while (replay_one(t, &r, &read)) {
		last = read > 0 ? read : last;
	}
	finish_replay(t);
	cpu = cpu_of(t) - cpu;
	seconds = (double)(now_ns() - begin) / 1e9;
	printf("{\"commands\": %u, \"seconds\": %.4f, \"per_s\": %.1f, \"cpu_s\": %.4f, "
	       "\"rss_idle_mib\": %.1f, \"rss_after_mib\": %.1f, \"hash\": \"%08x\"}\n",
		r.n, seconds, r.n / seconds, (double)cpu / 1e9, idle, rss_of(t),
		hash_of(t->data, last));
}

/* A surface of one pixel, bound to the framebuffer; and its clearing (virgl's protocol). */
static void clear(struct target *t, uint32_t n)
{
	static const uint32_t begin[] = {1, VTEST_CREATE_RENDERER, 0};
	static const uint32_t create[] = {10, VTEST_RESOURCE_CREATE, 1, 2, 67, 2, 1, 1, 1, 1, 0, 0};
	static const uint32_t bind[] = {
		10, VTEST_SUBMIT, 1 | 8 << 8 | 5 << 16, 100, 1, 67, 0, 0, 5 | 3 << 16, 1, 0, 100};
	static const uint32_t both[] = {
		9, VTEST_SUBMIT, 7 | 8 << 16, 4, 0, 0, 0, 0, 0, 0, 0, 2, VTEST_BUSY_WAIT, 1, 1};
	struct bench_samples samples = {0};
	uint8_t answer[VTEST_HEADER_SIZE + 4];
	uint64_t cpu = 0;

	send_all(t, begin, 2 * sizeof(uint32_t));
	send_all(t, "", 1);
	send_all(t, create, sizeof(create));
	send_all(t, bind, sizeof(bind));
	for (uint32_t i = 0; i < n + n / 10; i++) {
		uint64_t at = now_ns();

		if (i == n / 10) {
			bench_forget(&samples);
			cpu = cpu_of(t);
		}
		send_all(t, both, sizeof(both));
		receive(t, answer, sizeof(answer));
		bench_add(&samples, now_ns() - at);
	}
	printf("{\"clear_p50_us\": %.2f, \"clear_p99_us\": %.2f, \"clear_cpu_us\": %.2f}\n",
		bench_percentile(&samples, 50), bench_percentile(&samples, 99),
		(double)(cpu_of(t) - cpu) / n / 1e3);
	bench_forget(&samples);
}

#define GUEST_MEMORY (UINT64_C(2) << 30)
#define CLEAR_AT     SIM_PIXELS

static void start_guest(struct sim *s, char **argv)
{
	const struct sim_options o = {
		.argv = (const char *const *)argv,
		.cpu = BENCH_CPU_BACKEND,
		.quiet = true,
		.memory = GUEST_MEMORY,
		.width = 640,
		.height = 480,
	};

	if (sim_connect(s, &o) < 0 || sim_driver_ok(s, SIM_FEATURES_3D) < 0) {
		bench_fail("the backend doesn't start");
	}
	/* Its driver is there. */
	if (sim_context(s, 1) != VIRTIO_GPU_RESP_OK_NODATA ||
		sim_context_end(s, 1) != VIRTIO_GPU_RESP_OK_NODATA) {
		bench_fail("the backend draws nothing in 3D");
	}
}

static void play(const char *path, char **argv)
{
	static struct sim_play p;
	struct sim s;
	uint64_t begin, cpu;
	double idle, seconds;

	if (sim_play_load(&p, path) < 0) {
		bench_fail("no recording");
	}
	start_guest(&s, argv);
	p.context = 1;
	p.fenced = true;
	p.from = SIM_HIGH;
	p.to = SIM_HIGH + GUEST_MEMORY / 2;
	idle = (double)sim_backend_rss(&s.backend) / (1 << 20);
	cpu = sim_backend_cpu_ns(&s.backend);
	begin = now_ns();
	if (!sim_play(&p, &s)) {
		bench_fail(p.wrong);
	}
	seconds = (double)(now_ns() - begin) / 1e9;
	cpu = sim_backend_cpu_ns(&s.backend) - cpu;
	printf("{\"guest_commands\": %u, \"seconds\": %.4f, \"cpu_s\": %.4f, \"rss_idle_mib\": "
	       "%.1f, "
	       "\"rss_after_mib\": %.1f, \"read_backs\": %u, \"hash\": \"%08x\"}\n",
		p.commands, seconds, (double)cpu / 1e9, idle,
		(double)sim_backend_rss(&s.backend) / (1 << 20), p.read_backs, p.hash);
	sim_play_finish(&p);
	sim_stop(&s);
}

static void guest_clear(uint32_t n, char **argv)
{
	static const uint32_t bind[] = {
		1 | 8 << 8 | 5 << 16, 100, 1, 67, 0, 0, 5 | 3 << 16, 1, 0, 100};
	static const uint32_t clear_it[] = {7 | 8 << 16, 4, 0, 0, 0, 0, 0, 0, 0};
	struct bench_samples samples = {0};
	uint64_t cpu = 0;
	struct sim s;

	start_guest(&s, argv);
	if (sim_context(&s, 1) != VIRTIO_GPU_RESP_OK_NODATA ||
		sim_texture(&s, 1, VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM, 1, 1) !=
			VIRTIO_GPU_RESP_OK_NODATA ||
		sim_join(&s, 1, 1) != VIRTIO_GPU_RESP_OK_NODATA ||
		sim_submit(&s, 1, bind, ARRAY_SIZE(bind), CLEAR_AT, true) !=
			VIRTIO_GPU_RESP_OK_NODATA) {
		bench_fail("nothing can be cleared");
	}
	for (uint32_t i = 0; i < n + n / 10; i++) {
		uint64_t at = now_ns();

		if (i == n / 10) {
			bench_forget(&samples);
			cpu = sim_backend_cpu_ns(&s.backend);
		}
		if (sim_submit(&s, 1, clear_it, ARRAY_SIZE(clear_it), CLEAR_AT, true) !=
			VIRTIO_GPU_RESP_OK_NODATA) {
			bench_fail("a clear was refused");
		}
		bench_add(&samples, now_ns() - at);
	}
	printf("{\"clear_p50_us\": %.2f, \"clear_p99_us\": %.2f, \"clear_cpu_us\": %.2f}\n",
		bench_percentile(&samples, 50), bench_percentile(&samples, 99),
		(double)(sim_backend_cpu_ns(&s.backend) - cpu) / n / 1e3);
	bench_forget(&samples);
	sim_stop(&s);
}

int main(int argc, char **argv)
{
	struct target t = {.data = malloc(DATA_MAX), .commands = malloc(DATA_MAX)};

	if (!t.data || !t.commands) {
		bench_fail("out of memory");
	}
	if (argc == 3 && strcmp(argv[1], "replay") == 0) {
		bench_pin(BENCH_CPU_BACKEND);
		start_here(&t);
		replay(&t, argv[2]);
	} else if (argc == 5 && strcmp(argv[1], "replay") == 0) {
		bench_pin(BENCH_CPU_VMM);
		connect_to(&t, argv[3], argv[4]);
		replay(&t, argv[2]);
	} else if (argc >= 4 && strcmp(argv[1], "play") == 0) {
		bench_pin(BENCH_CPU_VMM);
		play(argv[2], argv + 3);
	} else if (argc >= 5 && strcmp(argv[1], "clear") == 0 && strcmp(argv[3], "vhost") == 0) {
		bench_pin(BENCH_CPU_VMM);
		guest_clear((uint32_t)strtoul(argv[2], NULL, 10), argv + 4);
	} else if (argc == 5 && strcmp(argv[1], "clear") == 0) {
		bench_pin(BENCH_CPU_VMM);
		connect_to(&t, argv[3], argv[4]);
		clear(&t, (uint32_t)strtoul(argv[2], NULL, 10));
	} else {
		bench_fail(
			"usage: gpu-bench-3d replay RECORDING [SOCKET PID] | clear N SOCKET PID");
	}
	free(t.data);
	free(t.commands);
	return EXIT_SUCCESS;
}
