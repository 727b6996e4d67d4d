/* SPDX-License-Identifier: MIT */
#include "gpu/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint32_t load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static int map(int fd, struct journal **out)
{
	void *p = mmap(NULL, sizeof(struct journal), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED) {
		return -errno;
	}
	*out = p;
	return 0;
}

int journal_create(int *fd_out, struct journal **out)
{
	_cleanup_close_ int fd = memfd_create("devbroker-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int err;

	if (fd < 0 || ftruncate(fd, sizeof(struct journal)) < 0 ||
		fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
		return -errno;
	}
	err = map(fd, out);
	if (err < 0) {
		return err;
	}
	(*out)->version = JOURNAL_VERSION;
	*fd_out = steal_fd(&fd);
	return 0;
}

int journal_map(int fd, struct journal **out)
{
	struct stat st;
	struct journal *j = NULL;
	int err;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (st.st_size != sizeof(struct journal) ||
		(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) != F_SEAL_SHRINK) {
		return -EINVAL;
	}
	err = map(fd, &j);
	if (err < 0) {
		return err;
	}
	if (load(&j->version) != JOURNAL_VERSION) {
		journal_unmap(j);
		return -EINVAL;
	}
	*out = j;
	return 0;
}

void journal_unmap(struct journal *j)
{
	if (j) {
		munmap(j, sizeof(*j));
	}
}

void journal_beat(struct journal *j)
{
	store(&j->beats, j->beats + 1);
}

uint32_t journal_beats(const struct journal *j)
{
	return load(&j->beats);
}

/* Whoever writes looks whether the other sleeps; whoever goes to sleep says so and looks again. */
static bool wakes(struct journal *j)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load(&j->front_sleeps) && __atomic_exchange_n(&j->front_sleeps, 0, __ATOMIC_SEQ_CST);
}

bool journal_put_damage(struct journal *j, const struct journal_damage *d)
{
	uint32_t put = j->damage_put;

	if (put - load(&j->damage_taken) >= JOURNAL_DAMAGES) {
		store(&j->damage_lost, j->damage_lost + 1);
	} else {
		j->damages[put % JOURNAL_DAMAGES] = *d;
		store(&j->damage_put, put + 1);
	}
	return wakes(j);
}

bool journal_put_cursor(struct journal *j, uint32_t scanout, const struct journal_cursor *cursor,
	const uint8_t *pixels)
{
	struct journal_cursor *c = &j->cursors[scanout];
	/* A renderer that was killed while writing left it odd. */
	uint32_t changes = c->changes | 1;

	store(&c->changes, changes);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	c->resource_id = cursor->resource_id;
	c->x = cursor->x;
	c->y = cursor->y;
	c->hot_x = cursor->hot_x;
	c->hot_y = cursor->hot_y;
	if (pixels) {
		memcpy(c->pixels, pixels, JOURNAL_CURSOR_BYTES);
		c->images++;
	}
	store(&c->changes, changes + 1);
	return wakes(j);
}

int journal_take_damage(struct journal *j, struct journal_reader *r, struct journal_damage *out)
{
	uint32_t lost = load(&j->damage_lost), waiting = load(&j->damage_put) - r->taken;

	if (lost != r->lost || waiting > JOURNAL_DAMAGES) {
		r->lost = lost;
		r->taken += waiting;
		store(&j->damage_taken, r->taken);
		return 2;
	}
	if (waiting == 0) {
		return 0;
	}
	*out = j->damages[r->taken % JOURNAL_DAMAGES];
	__asm__ volatile("" ::"r"(out) : "memory");
	r->taken++;
	store(&j->damage_taken, r->taken);
	return out->scanout < JOURNAL_SCANOUTS ? 1 : 2;
}

bool journal_take_cursor(struct journal *j, struct journal_reader *r, uint32_t scanout,
	struct journal_cursor *out, bool *new_image_out)
{
	const struct journal_cursor *c = &j->cursors[scanout];
	uint32_t changes = load(&c->changes);

	if (changes == r->cursor_changes[scanout] || changes & 1) {
		return false;
	}
	memcpy(out, c, offsetof(struct journal_cursor, pixels));
	*new_image_out = out->images != r->cursor_images[scanout];
	if (*new_image_out) {
		memcpy(out->pixels, c->pixels, JOURNAL_CURSOR_BYTES);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (load(&c->changes) != changes) {
		return false;
	}
	r->cursor_changes[scanout] = changes;
	r->cursor_images[scanout] = out->images;
	return true;
}

static bool anything(const struct journal *j, const struct journal_reader *r)
{
	if (load(&j->damage_put) != r->taken || load(&j->damage_lost) != r->lost) {
		return true;
	}
	for (uint32_t i = 0; i < JOURNAL_SCANOUTS; i++) {
		uint32_t changes = load(&j->cursors[i].changes);

		if (changes != r->cursor_changes[i] && !(changes & 1)) {
			return true;
		}
	}
	return false;
}

bool journal_sleep(struct journal *j, const struct journal_reader *r)
{
	store(&j->front_sleeps, 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!anything(j, r)) {
		return false;
	}
	store(&j->front_sleeps, 0);
	return true;
}
