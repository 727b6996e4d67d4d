/* SPDX-License-Identifier: MIT */
#include "usb/blocking.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/fd.h"

#define STACK_SIZE (256 * 1024) /* of which the kernel gives what is touched */

struct blocking {
	int eventfd;
	sd_event_source *source;
	void (*done)(void *userdata);
	void *userdata;
	bool busy; /* the loop's */

	/* Handed over by the semaphore and the eventfd. */
	void (*call)(void *userdata); /* NULL: end */
	void *call_data;
	sem_t work;
	bool work_valid;
	pthread_t thread;
	bool thread_valid;
};

static void *thread_main(void *userdata)
{
	struct blocking *b = userdata;

	for (;;) {
		while (sem_wait(&b->work) < 0) {
		}
		if (!b->call) {
			return NULL;
		}
		b->call(b->call_data);
		eventfd_write(b->eventfd, 1);
	}
}

static int handle_done(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct blocking *b = userdata;
	eventfd_t count;

	if (eventfd_read(fd, &count) == 0) {
		b->busy = false;
		b->done(b->userdata);
	}
	return 0;
}

void blocking_run(struct blocking *b, void (*call)(void *userdata), void *userdata)
{
	assert(!b->busy);
	b->busy = true;
	b->call = call;
	b->call_data = userdata;
	sem_post(&b->work);
}

bool blocking_busy(const struct blocking *b)
{
	return b->busy;
}

static int start_thread(struct blocking *b)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int e = pthread_attr_init(&attr);

	if (e) {
		return -e;
	}
	/* An arena of its own would cost the thread's few allocations more memory than the rest of
	 * the worker needs. */
	mallopt(M_ARENA_MAX, 1);
	/* All signals go to the loop thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	e = pthread_create(&b->thread, &attr, thread_main, b);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	b->thread_valid = e == 0;
	return -e;
}

static int init(struct blocking *b, sd_event *event)
{
	int r;

	b->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->eventfd < 0) {
		return -errno;
	}
	if (sem_init(&b->work, 0, 0) < 0) {
		return -errno;
	}
	b->work_valid = true;
	r = sd_event_add_io(event, &b->source, b->eventfd, EPOLLIN, handle_done, b);
	return r < 0 ? r : start_thread(b);
}

int blocking_create(
	sd_event *event, void (*done)(void *userdata), void *userdata, struct blocking **out)
{
	struct blocking *b = calloc(1, sizeof(*b));
	int r;

	if (!b) {
		return -ENOMEM;
	}
	b->eventfd = -1;
	b->done = done;
	b->userdata = userdata;
	r = init(b, event);
	if (r < 0) {
		blocking_destroy(b);
		return r;
	}
	*out = b;
	return 0;
}

void blocking_destroy(struct blocking *b)
{
	struct pollfd over;

	if (!b) {
		return;
	}
	if (b->thread_valid) {
		/* b->call is the thread's until then. */
		over = (struct pollfd){.fd = b->eventfd, .events = POLLIN};
		while (b->busy && poll(&over, 1, -1) < 0) {
		}
		b->call = NULL;
		sem_post(&b->work);
		pthread_join(b->thread, NULL);
	}
	sd_event_source_disable_unref(b->source);
	if (b->work_valid) {
		sem_destroy(&b->work);
	}
	safe_close(b->eventfd);
	free(b);
}
