/* SPDX-License-Identifier: MIT
 *
 * devbroker-gpu: one executable for the processes of a VM's GPU. Without --front or --renderer it
 * is their parent, with the options that VMMs and libvirt give to vhost-user-gpu (QEMU,
 * docs/interop/vhost-user.rst, "Backend program conventions").
 */
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "gpu/options.h"

static bool is_stream(int fd)
{
	int type = 0;
	socklen_t size = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

/* Where render-node is said, libvirt starts no domain without one: it is said where there is one.
 */
static void print_capabilities(void)
{
	glob_t nodes;
	bool any = glob("/dev/dri/renderD*", GLOB_NOSORT, NULL, &nodes) == 0;

	if (any) {
		globfree(&nodes);
	}
	printf("{\n  \"type\": \"gpu\",\n  \"features\": [\n%s    \"virgl\"\n  ]\n}\n",
		any ? "    \"render-node\",\n" : "");
}

static int run_standalone(struct options *o)
{
	if (o->print_capabilities) {
		print_capabilities();
		return EXIT_SUCCESS;
	}
	if (o->socket_path) {
		o->standalone.vhost_fd = standalone_accept(o->socket_path);
		if (o->standalone.vhost_fd < 0) {
			fprintf(stderr, "devbroker-gpu: can't wait for a VMM on %s: %s\n",
				o->socket_path, strerror(-o->standalone.vhost_fd));
			return EXIT_FAILURE;
		}
	}
	if (!is_stream(o->standalone.vhost_fd)) {
		fprintf(stderr, "devbroker-gpu: fd %d is no stream socket\n",
			o->standalone.vhost_fd);
		return EXIT_FAILURE;
	}
	return standalone_run(&o->standalone);
}

int main(int argc, char **argv)
{
	struct options o;
	int r = options_parse(argc, argv, &o);

	if (r >= 0) {
		return r;
	}
	switch (o.role) {
	case GPU_ROLE_RENDERER:
		return renderer_run(&o.renderer);
	case GPU_ROLE_FRONT:
		return front_run(&o.front);
	case GPU_ROLE_VTEST:
		return vtest_run(&o.vtest);
	case GPU_ROLE_VTEST_CLIENT:
		return vtest_client_run(&o.vtest_client);
	default:
		return run_standalone(&o);
	}
}
