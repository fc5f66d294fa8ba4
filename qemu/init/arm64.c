// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of the arm64 guest. Prints to the virtio console, as one KTAP, what the KUnit
 * suites found at boot, and what the kselftests in /nextid find.
 */
#include <err.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KSFT_SKIP 4

static void mount_at(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL))
		perror(where);
}

/* The kernel prints each suite as a whole of its own: two lines, the suite, and "ok 1 NAME". */
static void show_kunit(const char *results, int number)
{
	FILE *file = fopen(results, "r");
	char line[4096];

	for (int i = 0; file && fgets(line, sizeof(line), file); i++) {
		const char *ok = strncmp(line, "not ", 4) ? line : line + 4;

		if (!strncmp(ok, "ok 1 ", 5))
			printf("%.*sok %d %s", (int)(ok - line), line, number, ok + 5);
		else if (i >= 2)
			fputs(line, stdout);
	}
	if (file)
		fclose(file);
}

static void run_kselftest(char *program, int number)
{
	int status = -1, output[2];
	char line[4096];
	FILE *lines;

	fflush(stdout);
	if (pipe(output))
		err(1, "pipe");
	if (!fork()) {
		dup2(output[1], STDOUT_FILENO);
		dup2(output[1], STDERR_FILENO);
		close(output[0]);
		close(output[1]);
		execl(program, program, NULL);
		err(127, "%s", program);
	}
	close(output[1]);
	lines = fdopen(output[0], "r");
	while (fgets(line, sizeof(line), lines))
		printf("    %s", line);
	fclose(lines);
	wait(&status);
	printf("%sok %d %s\n", status && WEXITSTATUS(status) != KSFT_SKIP ? "not " : "", number, program);
}

int main(int argc, char **argv)
{
	glob_t suites = { 0 }, programs = { 0 };
	int number = 0;

	if (argc > 0 && !strcmp(argv[0], "cat")) {	/* one of the kselftests runs it */
		while ((number = getchar()) != EOF)
			putchar(number);
		return 0;
	}
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	mount_at("debugfs", "/sys/kernel/debug");
	mount_at("cgroup2", "/sys/fs/cgroup");
	mount_at("devtmpfs", "/dev");
	mount_at("tmpfs", "/tmp");
	mount_at("tmpfs", "/dev/shm");
	if (!freopen("/dev/hvc0", "w", stdout) || !freopen("/dev/null", "r", stdin))
		err(1, "/dev/hvc0");

	if (glob("/sys/kernel/debug/kunit/nextid*/results", 0, NULL, &suites))
		errx(1, "there are no results of KUnit");
	if (glob("/nextid/*_test", 0, NULL, &programs))
		errx(1, "there are no kselftests in /nextid");
	printf("KTAP version 1\n1..%zu\n", suites.gl_pathc + programs.gl_pathc);
	for (size_t i = 0; i < suites.gl_pathc; i++)
		show_kunit(suites.gl_pathv[i], ++number);
	if (chdir("/nextid"))
		err(1, "/nextid");
	for (size_t i = 0; i < programs.gl_pathc; i++)
		run_kselftest(programs.gl_pathv[i], ++number);
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
}
