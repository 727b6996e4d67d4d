/* SPDX-License-Identifier: MIT
 * One round of tests/bench gpu-2d: gpu-bench MS limit, or gpu-bench MS BACKEND [OPTION…]. MS is how
 * long each cell takes. Prints a JSON object.
 */
#include "tests/benches/gpu-bench.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define MEMORY (256U << 20)

const struct bench_size bench_sizes[4] = {{640, 480}, {1280, 800}, {1920, 1080}, {3840, 2160}};

static void bench_backend(const char *const *argv, uint64_t for_ns)
{
	const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	const struct sim_options o = {
		.argv = argv,
		.cpu = BENCH_CPU_BACKEND,
		.quiet = true,
		.memory = MEMORY,
		.width = 1920,
		.height = 1080,
	};
	uint64_t begin = now_ns(), replied, features = 0;
	bool blobs;
	struct sim s;

	if (sim_connect(&s, &o) < 0) {
		bench_fail("no backend");
	}
	replied = now_ns();
	s.screen.drop_pixels = true;
	blobs = sim_vmm_ask(&s.vmm, VHOST_USER_GET_FEATURES, &features) == 0 &&
		features & UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB;
	if (sim_driver_ok(&s, blobs ? SIM_FEATURES_BLOB : SIM_FEATURES) < 0 ||
		sim_command(&s, &info, sizeof(info)) != VIRTIO_GPU_RESP_OK_DISPLAY_INFO) {
		bench_fail("the backend doesn't start");
	}
	printf("{\"start_reply_ms\": %.3f, \"start_command_ms\": %.3f",
		(double)(replied - begin) / 1e6, (double)(now_ns() - begin) / 1e6);
	printf(", \"rss_idle_mib\": %.2f", (double)sim_backend_rss(&s.backend) / (1 << 20));
	bench_commands(&s);
	bench_info(&s);
	bench_frames(&s, for_ns, blobs);
	bench_cursor(&s, for_ns);
	printf(", \"rss_after_mib\": %.2f}\n", (double)sim_backend_rss(&s.backend) / (1 << 20));
	sim_stop(&s);
}

int main(int argc, char **argv)
{
	uint64_t for_ns = argc > 2 ? strtoull(argv[1], NULL, 10) * 1000000 : 0;

	if (for_ns == 0) {
		bench_fail("usage: gpu-bench MS limit | gpu-bench MS BACKEND [OPTION...]");
	}
	bench_pin(BENCH_CPU_VMM);
	if (strcmp(argv[2], "limit") == 0) {
		bench_limits(for_ns);
	} else {
		bench_backend((const char *const *)argv + 2, for_ns);
	}
	return EXIT_SUCCESS;
}
