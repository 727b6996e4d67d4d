/* SPDX-License-Identifier: MIT
 * devbroker-gpu's command line.
 */
#pragma once

#include "gpu/renderer.h"

enum gpu_role { GPU_ROLE_NONE, GPU_ROLE_RENDERER };

struct options {
	enum gpu_role role;
	struct renderer_options renderer;
};

/* Fills *out. Returns -1 to go on, or an exit code with everything said. */
int options_parse(int argc, char **argv, struct options *out);
