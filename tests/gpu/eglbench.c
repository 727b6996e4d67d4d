/* SPDX-License-Identifier: MIT
 * A GL program without a window: eglbench FRAMES FILE draws a textured shape that turns, reads each
 * frame back, and leaves the last one in FILE, SIDE by SIDE pixels of RGBA. It says which renderer
 * drew, and how many frames there were in a second.
 */
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GLES2/gl2.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

#define SIDE    512
#define TEXTURE 64
#define CORNERS 12

static const char vertex_text[] =
	"attribute vec2 at;\n"
	"attribute vec3 colour;\n"
	"uniform float angle;\n"
	"varying vec3 c;\n"
	"varying vec2 t;\n"
	"void main() {\n"
	"	float s = sin(angle), k = cos(angle);\n"
	"	c = colour;\n"
	"	t = at * 2.0;\n"
	"	gl_Position = vec4(at.x * k - at.y * s, at.x * s + at.y * k, 0, 1);\n"
	"}\n";
static const char fragment_text[] =
	"precision mediump float;\n"
	"varying vec3 c;\n"
	"varying vec2 t;\n"
	"uniform sampler2D image;\n"
	"void main() { gl_FragColor = vec4(c * texture2D(image, t).rgb, 1); }\n";

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "eglbench: %s (EGL 0x%x)\n", what, (unsigned int)eglGetError());
	exit(EXIT_FAILURE);
}

static void start_egl(void)
{
	static const EGLint config_wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RED_SIZE, 8,
		EGL_GREEN_SIZE, 8, EGL_BLUE_SIZE, 8, EGL_ALPHA_SIZE, 8, EGL_RENDERABLE_TYPE,
		EGL_OPENGL_ES2_BIT, EGL_NONE};
	static const EGLint context_wanted[] = {EGL_CONTEXT_CLIENT_VERSION, 2, EGL_NONE};
	static const EGLint surface_wanted[] = {EGL_WIDTH, SIDE, EGL_HEIGHT, SIDE, EGL_NONE};
	EGLDisplay display =
		eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, NULL);
	EGLint n = 0;
	EGLConfig config = NULL;
	EGLContext context;
	EGLSurface surface;

	if (!eglInitialize(display, NULL, NULL) || !eglBindAPI(EGL_OPENGL_ES_API) ||
		!eglChooseConfig(display, config_wanted, &config, 1, &n) || n == 0) {
		fail("no display");
	}
	context = eglCreateContext(display, config, EGL_NO_CONTEXT, context_wanted);
	surface = eglCreatePbufferSurface(display, config, surface_wanted);
	if (!eglMakeCurrent(display, surface, surface, context)) {
		fail("no context");
	}
}

static GLuint compile(GLenum type, const char *text)
{
	GLuint shader = glCreateShader(type);
	GLint ok = 0;

	glShaderSource(shader, 1, &text, NULL);
	glCompileShader(shader);
	glGetShaderiv(shader, GL_COMPILE_STATUS, &ok);
	if (!ok) {
		fail("a shader doesn't compile");
	}
	return shader;
}

static GLuint make_program(void)
{
	GLuint program = glCreateProgram();
	GLint ok = 0;

	glAttachShader(program, compile(GL_VERTEX_SHADER, vertex_text));
	glAttachShader(program, compile(GL_FRAGMENT_SHADER, fragment_text));
	glBindAttribLocation(program, 0, "at");
	glBindAttribLocation(program, 1, "colour");
	glLinkProgram(program);
	glGetProgramiv(program, GL_LINK_STATUS, &ok);
	if (!ok) {
		fail("the program doesn't link");
	}
	glUseProgram(program);
	return program;
}

static void make_texture(void)
{
	static unsigned char pixels[TEXTURE * TEXTURE * 4];
	GLuint texture;

	for (int i = 0; i < TEXTURE * TEXTURE; i++) {
		int bright = (i % TEXTURE / 8 + i / TEXTURE / 8) % 2;

		pixels[i * 4] = pixels[i * 4 + 1] = pixels[i * 4 + 2] = bright ? 255 : 128;
		pixels[i * 4 + 3] = 255;
	}
	glGenTextures(1, &texture);
	glBindTexture(GL_TEXTURE_2D, texture);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_LINEAR);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_LINEAR);
	glTexImage2D(
		GL_TEXTURE_2D, 0, GL_RGBA, TEXTURE, TEXTURE, 0, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
}

static void make_shape(void)
{
	static float vertices[CORNERS + 2][5];
	GLuint buffer;

	vertices[0][2] = vertices[0][3] = vertices[0][4] = 1;
	for (int i = 0; i <= CORNERS; i++) {
		float a = (float)i * 6.2831853f / CORNERS, *v = vertices[i + 1];

		v[0] = 0.9f * cosf(a);
		v[1] = 0.9f * sinf(a);
		v[2] = 0.5f + 0.5f * cosf(a);
		v[3] = 0.5f + 0.5f * cosf(a + 2);
		v[4] = 0.5f + 0.5f * cosf(a + 4);
	}
	glGenBuffers(1, &buffer);
	glBindBuffer(GL_ARRAY_BUFFER, buffer);
	glBufferData(GL_ARRAY_BUFFER, sizeof(vertices), vertices, GL_STATIC_DRAW);
	glVertexAttribPointer(0, 2, GL_FLOAT, GL_FALSE, sizeof(vertices[0]), NULL);
	glVertexAttribPointer(
		1, 3, GL_FLOAT, GL_FALSE, sizeof(vertices[0]), (void *)(2 * sizeof(float)));
	glEnableVertexAttribArray(0);
	glEnableVertexAttribArray(1);
}

int main(int argc, char **argv)
{
	static unsigned char pixels[SIDE * SIDE * 4];
	int frames = argc == 3 ? atoi(argv[1]) : 0;
	uint64_t start;
	GLint angle;
	FILE *f;

	if (frames < 1) {
		fprintf(stderr, "usage: eglbench FRAMES FILE\n");
		return 2;
	}
	start_egl();
	angle = glGetUniformLocation(make_program(), "angle");
	make_texture();
	make_shape();
	glClearColor(0.1f, 0.2f, 0.4f, 1);
	start = now_usec();
	for (int i = 0; i < frames; i++) {
		glUniform1f(angle, 0.05f * (float)i);
		glClear(GL_COLOR_BUFFER_BIT);
		glDrawArrays(GL_TRIANGLE_FAN, 0, CORNERS + 2);
		glReadPixels(0, 0, SIDE, SIDE, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
	}
	printf("%s: %.0f frames/s\n", (const char *)glGetString(GL_RENDERER),
		frames * 1e6 / (double)(now_usec() - start + 1));
	f = fopen(argv[2], "we");
	if (!f || fwrite(pixels, sizeof(pixels), 1, f) != 1 || fclose(f) != 0) {
		perror(argv[2]);
		return 1;
	}
	return glGetError() == GL_NO_ERROR ? 0 : 1;
}
