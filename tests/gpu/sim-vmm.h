/* SPDX-License-Identifier: MIT
 * The VMM's side of vhost-user, in the order in which QEMU 7.2 says things; and the guest's memory.
 * Each message can also be sent by itself, and in any other form.
 */
#pragma once

#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/vhost-user.h"

/* The guest's memory has two regions in one file, as QEMU's has above and below 4 GiB. */
#define SIM_HIGH   0x100000000 /* where the second one begins in the guest */
#define SIM_QUEUES 2

struct sim_memory {
	int fd;
	uint8_t *base; /* all of it */
	size_t size;   /* half of it in each region */
};

struct sim_vmm {
	int fd; /* borrowed: of the backend */
	struct sim_memory memory;
	uint64_t features;          /* that the backend offers */
	uint64_t protocol_features; /* the same */
	uint64_t acked;
};

/* 0 or -errno. */
int sim_memory_init(struct sim_memory *m, size_t size) _must_check_;
void sim_memory_finish(struct sim_memory *m);
/* What lies at a guest's address; NULL outside. */
void *sim_memory_at(const struct sim_memory *m, uint64_t guest);
/* Where the VMM has it: what ring addresses are given in. */
uint64_t sim_memory_user(const struct sim_memory *m, uint64_t guest);
void sim_memory_table(const struct sim_memory *m, struct vhost_user_memory *out);

/* Sends one message, whatever is in it: payload size bytes, fds borrowed. 0 or -errno. */
int sim_vmm_send(const struct sim_vmm *v, uint32_t request, uint32_t flags, const void *payload,
	size_t size, const int *fds, size_t n_fds) _must_check_;
/* The reply to request: its payload has to have this size. Within 5 s; 0, -ETIMEDOUT, -EPIPE when
 * the backend is gone, -EPROTO for anything else. */
int sim_vmm_reply(
	const struct sim_vmm *v, uint32_t request, void *payload, size_t size) _must_check_;
/* Both, with a number as the answer. */
int sim_vmm_ask(const struct sim_vmm *v, uint32_t request, uint64_t *out) _must_check_;
/* With the flag NEED_REPLY if the backend can, and its answer; where it can't, GET_FEATURES tells
 * that it was handled. 0: done. 1: refused. Else -errno as above. */
int sim_vmm_tell(const struct sim_vmm *v, uint32_t request, const void *payload, size_t size,
	const int *fds, size_t n_fds) _must_check_;
int sim_vmm_tell_number(const struct sim_vmm *v, uint32_t request, uint64_t number) _must_check_;

/* What QEMU says before there is a guest: features, protocol features, owner. */
int sim_vmm_init(struct sim_vmm *v, int fd, size_t memory) _must_check_;
void sim_vmm_finish(struct sim_vmm *v);
/* features of the driver, and the memory. */
int sim_vmm_features(struct sim_vmm *v, uint64_t features) _must_check_;
int sim_vmm_memory(struct sim_vmm *v) _must_check_;

/* What a guest's driver reads, as it comes. */
int sim_vmm_config(const struct sim_vmm *v, struct virtio_gpu_config *out) _must_check_;

struct sim_vmm_ring {
	uint32_t size;
	uint32_t base;
	uint64_t desc, avail, used; /* guest addresses */
	int kick, call;             /* borrowed */
};

int sim_vmm_ring_start(
	struct sim_vmm *v, uint32_t queue, const struct sim_vmm_ring *r) _must_check_;
/* Stops it; where it would go on. */
int sim_vmm_ring_stop(struct sim_vmm *v, uint32_t queue, uint32_t *base_out) _must_check_;
