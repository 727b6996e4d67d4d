/* SPDX-License-Identifier: MIT
 *
 * devbroker-gpu: one executable for the processes of a VM's GPU.
 */
#include "gpu/options.h"

int main(int argc, char **argv)
{
	struct options o;
	int r = options_parse(argc, argv, &o);

	return r >= 0 ? r : renderer_run(&o.renderer);
}
