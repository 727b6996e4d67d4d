/* SPDX-License-Identifier: MIT */
#include "tests/integration/fake-vmm.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

#define BIG_LINE (10U << 20)

struct player {
	int fd;
	int kept; /* fd that came with a command */
	size_t size;
	char line[8192];
};

static enum fake_vmm_end write_all(int fd, const char *data, size_t size, size_t piece)
{
	size_t at = 0;

	while (at < size) {
		size_t left = size - at;
		ssize_t n = send(fd, data + at, left < piece ? left : piece, MSG_NOSIGNAL);

		if (n < 0) {
			return FAKE_VMM_CLOSED;
		}
		at += (size_t)n;
	}
	return FAKE_VMM_PLAYED;
}

/* Receives what there is, with at most one fd. false: the peer closed. */
static bool receive(struct player *p, char *data, size_t size, size_t *size_out)
{
	int fds[1];
	size_t n_fds = 0;
	ssize_t n = fd_recv(p->fd, data, size, fds, 1, &n_fds);

	if (n_fds > 0) {
		safe_close(p->kept);
		p->kept = fds[0];
	}
	if (n <= 0) {
		return false;
	}
	*size_out = (size_t)n;
	return true;
}

static enum fake_vmm_end expect(struct player *p, const char *text)
{
	char *end;
	size_t n, rest;
	bool found;

	while (!(end = memchr(p->line, '\n', p->size))) {
		if (p->size == sizeof(p->line)) {
			return FAKE_VMM_FAILED;
		}
		if (!receive(p, p->line + p->size, sizeof(p->line) - p->size, &n)) {
			return FAKE_VMM_CLOSED;
		}
		p->size += n;
	}
	*end = '\0';
	found = strstr(p->line, text);
	if (!found) {
		fprintf(stderr, "fake VMM: expected %s, got %s\n", text, p->line);
	}
	rest = p->size - (size_t)(end + 1 - p->line);
	memmove(p->line, end + 1, rest);
	p->size = rest;
	return found ? FAKE_VMM_PLAYED : FAKE_VMM_UNEXPECTED;
}

static enum fake_vmm_end ignore(struct player *p)
{
	size_t n;

	while (receive(p, p->line, sizeof(p->line), &n)) {
	}
	return FAKE_VMM_PLAYED;
}

static enum fake_vmm_end big_line(const struct player *p)
{
	_cleanup_free_ char *line = malloc(BIG_LINE);

	if (!line) {
		return FAKE_VMM_FAILED;
	}
	memset(line, 'x', BIG_LINE);
	return write_all(p->fd, line, BIG_LINE, BIG_LINE);
}

static enum fake_vmm_end flood(const struct player *p)
{
	static const char event[] = "{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 7}}\r\n";

	while (write_all(p->fd, event, sizeof(event) - 1, sizeof(event)) == FAKE_VMM_PLAYED) {
	}
	return FAKE_VMM_PLAYED;
}

static enum fake_vmm_end stream(const struct player *p, const char *text)
{
	if (p->kept < 0) {
		fprintf(stderr, "fake VMM: no fd came\n");
		return FAKE_VMM_UNEXPECTED;
	}
	return write_all(p->kept, text, strlen(text), SIZE_MAX);
}

static enum fake_vmm_end play_step(struct player *p, const struct fake_vmm_step *step)
{
	switch (step->act) {
	case FAKE_VMM_SAY:
		return write_all(p->fd, step->text, strlen(step->text), SIZE_MAX);
	case FAKE_VMM_TRICKLE:
		return write_all(p->fd, step->text, strlen(step->text), 1);
	case FAKE_VMM_EXPECT:
		return expect(p, step->text);
	case FAKE_VMM_PAUSE:
		usleep(500 * 1000);
		return FAKE_VMM_PLAYED;
	case FAKE_VMM_STREAM:
		return stream(p, step->text);
	case FAKE_VMM_SILENT:
		return ignore(p);
	case FAKE_VMM_BIG_LINE:
		return big_line(p);
	case FAKE_VMM_FLOOD_EVENTS:
		return flood(p);
	case FAKE_VMM_CLOSE:
		p->fd = safe_close(p->fd);
		p->kept = safe_close(p->kept);
		return FAKE_VMM_PLAYED;
	}
	return FAKE_VMM_FAILED;
}

/* Takes fd. */
static enum fake_vmm_end play(int fd, const struct fake_vmm_step *steps, size_t n)
{
	struct player p = {.fd = fd, .kept = -1};
	enum fake_vmm_end end = FAKE_VMM_PLAYED;

	for (size_t i = 0; i < n && end == FAKE_VMM_PLAYED; i++) {
		end = play_step(&p, &steps[i]);
	}
	/* What is said after the end is not in the script. */
	if (end == FAKE_VMM_PLAYED && p.fd >= 0) {
		size_t more = p.size;

		if (more == 0 && receive(&p, p.line, sizeof(p.line), &more)) {
			end = FAKE_VMM_UNEXPECTED;
		}
		if (more > 0) {
			fprintf(stderr, "fake VMM: unexpected %.*s\n", (int)more, p.line);
			end = FAKE_VMM_UNEXPECTED;
		}
	}
	safe_close(p.fd);
	safe_close(p.kept);
	return end;
}

static int fork_player(struct fake_vmm *out)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0) {
		return -errno;
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) {
			_exit(FAKE_VMM_FAILED);
		}
		return 1;
	}
	out->pid = pid;
	return 0;
}

int fake_vmm_start(const struct fake_vmm_step *steps, size_t n, struct fake_vmm *out)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	r = fork_player(out);
	if (r == 1) {
		safe_close(pair[1]);
		_exit((int)play(pair[0], steps, n));
	}
	safe_close(pair[0]);
	out->fd = r < 0 ? safe_close(pair[1]) : pair[1];
	return r;
}

int fake_vmm_listen(
	const char *path, const struct fake_vmm_step *steps, size_t n, struct fake_vmm *out)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (fd < 0) {
		return -errno;
	}
	if (strlen(path) >= sizeof(addr.sun_path)) {
		return -ENAMETOOLONG;
	}
	strcpy(addr.sun_path, path);
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 16) < 0) {
		return -errno;
	}
	r = fork_player(out);
	if (r == 1) {
		for (;;) {
			int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

			if (client < 0) {
				_exit(FAKE_VMM_FAILED);
			}
			play(client, steps, n);
		}
	}
	out->fd = -1;
	return r;
}

enum fake_vmm_end fake_vmm_wait(struct fake_vmm *v)
{
	int status;

	v->fd = safe_close(v->fd);
	if (waitpid(v->pid, &status, 0) != v->pid || !WIFEXITED(status)) {
		return FAKE_VMM_FAILED;
	}
	v->pid = -1;
	return (enum fake_vmm_end)WEXITSTATUS(status);
}

void fake_vmm_stop(struct fake_vmm *v)
{
	v->fd = safe_close(v->fd);
	if (v->pid > 0) {
		kill(v->pid, SIGKILL);
		waitpid(v->pid, NULL, 0);
		v->pid = -1;
	}
}
