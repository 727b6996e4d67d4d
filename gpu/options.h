/* SPDX-License-Identifier: MIT
 * devbroker-gpu's command line.
 */
#pragma once

#include <stdbool.h>

#include "gpu/front.h"
#include "gpu/renderer.h"
#include "gpu/standalone.h"
#include "gpu/vtest-client.h"
#include "gpu/vtest.h"

enum gpu_role {
	GPU_ROLE_STANDALONE,
	GPU_ROLE_RENDERER,
	GPU_ROLE_FRONT,
	GPU_ROLE_VTEST,
	GPU_ROLE_VTEST_CLIENT,
};

struct options {
	enum gpu_role role;
	struct renderer_options renderer;
	struct front_options front;
	struct standalone_options standalone;
	struct vtest_options vtest;
	struct vtest_client_options vtest_client;
	/* Stand-alone */
	const char *socket_path; // may be NULL
	bool print_capabilities;
};

/* Fills *out. Returns -1 to go on, or an exit code with everything said. */
int options_parse(int argc, char **argv, struct options *out);
