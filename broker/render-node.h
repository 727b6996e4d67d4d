/* SPDX-License-Identifier: MIT
 * The host's GPUs as far as guests' commands may be drawn on them: DRM render nodes.
 *
 * libdrm finds them in sysfs and names them; udev's word is which of them is for guests. Nothing
 * is said to a driver here: a node is opened, and passed on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

#define RENDER_NODES_MAX 16

struct render_node {
	char path[64];   /* /dev/dri/renderD128 */
	char driver[32]; /* of the kernel; "" if that can't be known */
	char bus[64];    /* "pci 0000:00:02.0 8086:46a6", or what else it is on; "" */
	bool tagged;     /* ENV{DEVBROKER_GPU}="1" by a rule of udev's */
};

/* Those that there are now, in libdrm's order. Returns how many, or -errno. */
int render_nodes_list(struct render_node out[static RENDER_NODES_MAX]) _must_check_;
/* The path of the first that is tagged. 0; -ENOENT; -errno. */
int render_node_tagged(char out[static 64]) _must_check_;
/* Opens path, or if that is NULL the first that is tagged, whose path is in *shown_out then. The fd
 * is the caller's. 0; -ENOENT: none is tagged; -ENOTTY: path is no render node; -errno. */
int render_node_open(const char *path, int *fd_out, char shown_out[static 64]) _must_check_;
/* The same for who can do without one: 0 with *fd_out -1 if none is tagged, unless it is demanded.
 * -errno with the reason in why_out. */
int render_node_choose(const char *path, bool demanded, int *fd_out, char shown_out[static 64],
	char *why_out, size_t why_size) _must_check_;
