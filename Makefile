# Variables, as in make stress CONFIG=kasan:
#
#   CONFIG="kasan ..."      adds kernel-config/kasan.config to the kernel: run, test, kunit,
#                           selftest, stress, restore, zdtm, apps, upstream, kernel, baseline,
#                           shell
#   BACKEND=uml             boots the kernel as a program: run, selftest, stress, kernel
#   KVER=7.2.12             another version of the kernel
#   KSRC=PATH               its source, a tarball or an unpacked tree
#   COMPILER=gcc            builds its C with gcc
#   ROUNDS=2 SEED=17        stress: so many rounds, from this seed on
#   TREES=200 SEED=17       restore: so many trees of random histories, from this seed on
#   TESTS="static/pty00 ..." CRIU_TREE=PATH
#                           zdtm: these tests; those of a CRIU that is built there
#   NAMES="redis ..."       apps: these programs
#   FUZZ_SECONDS=3600       fuzz: for so long
#   MUTANT=P4               mutate: the mutants with that in their title
#   ROW="arm64 gcc"         matrix: these rows
#   KCONFIG=/boot/config-6  deb: only the packages, built upon this configuration
#
# Generated files are in the cache, ~/.cache/nextid (XDG_CACHE_HOME), and in results/; what
# cargo-fuzz leaves is in rust/fuzz/.

.DEFAULT_GOAL := help
.PHONY: help run test kunit selftest stress fuzz restore zdtm apps upstream mutate bench check send-check bisect matrix deb deb-tool shell kernel baseline tree refresh clean distclean

config := $(addprefix --config ,$(CONFIG)) $(addprefix --backend ,$(BACKEND))

help: ## this list
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "%-11s %s\n", $$1, $$2 }'

run: ## create a process tree and ipc objects with chosen ids, on a kernel with the series
	@ktest/demo-ids $(config)

test: ## the tests that take minutes: host tests, fuzzing in brief, KUnit, kselftest, dumps of CRIU, stress, benchmarks in brief, static checks
	@ktest/run $(config) host fuzz kunit-vng kunit-uml kselftest restore criu stress bench checks

kunit: ## the KUnit suites, in virtme-ng and under UML
	@ktest/run $(config) kunit-vng kunit-uml

selftest: ## the kselftests
	@ktest/run $(config) kselftest

stress: ## the kselftests, and a million requests in races; CONFIG=kasan, lockdep, kcsan, kmemleak or faults, BACKEND=uml
	@ktest/run $(config) kselftest stress-long $(filter faults,$(CONFIG))

fuzz: ## fuzz the parser, the list and the reader of CRIU's images, for ten minutes
	@ktest/run fuzz-long

restore: ## dump a running tree with the real CRIU, restore it with nextid and with CRIU, and compare; then trees of random histories
	@ktest/demo-dump $(config)

zdtm: ## CRIU's own tests about ids, with CRIU as it is and with patches/criu
	@ktest/run $(config) --config criu zdtm

apps: ## programs that people run, dumped by CRIU and restored: by CRIU, without the patches and with them, and by nextid
	@ktest/apps $(config) --config criu --config apps $(NAMES)

upstream: ## the tree's own kselftests, without the series and with it, side by side
	@ktest/run $(config) upstream

mutate: ## each rule taken out of the kernel, one by one: which suite catches it?
	@ktest/run mutate

bench: ## next_id beside every other way to choose an id: writes Documentation/performance.md, in over 25 minutes, or some hours without KVM
	@ktest/bench

check: ## every static check
	@ktest/run checks-all

send-check: ## write the series as mails to results/send/, and check that git am gives the same tree as quilt
	@qemu/send-check

bisect: ## build each prefix of the series, with the option and without, and run its KUnit suites and kselftests
	@ktest/run bisect

matrix: ## other kernels, compilers and machines: writes the table in README.md
	@ktest/matrix $(ROW)

deb: ## Debian's kernel with the series, as packages; installed in a Debian 13, booted and tested there
	@$(if $(KCONFIG),qemu/deb $(KCONFIG),ktest/run deb)

deb-tool: ## a package of the tool nextid, with its man pages and completions
	@rust/nextid-tool/debian/build

shell: kernel ## a shell in the guest
	@qemu/guest $(config) --shell

kernel: ## build the kernel with the series
	@qemu/build $(config)

baseline: ## build the kernel without the series, to compare with; `qemu/baseline qemu/guest -- CMD` boots it
	@qemu/baseline qemu/build $(config)

tree: ## make the patched work tree, or bring it in step with patches/
	@qemu/tree && bash -c '. "$$0"; say "edit in $$TREE"' qemu/lib/common.bash

refresh: ## write the edits of the work tree back to patches/
	@qemu/refresh

clean: ## remove what is derived in the checkout
	rm -rf results rust/target rust/fuzz/target rust/fuzz/artifacts rust/fuzz/coverage

distclean: clean ## remove the cache as well: sources, tree, builds, tools
	@bash -c '. "$$0"; say "rm -rf $$CACHE $$CACHE-scratch-*"; chmod -f u+rwx "$$CACHE"-scratch-*/work/work || true; \
		rm -rf "$$CACHE"{,-scratch-*}' qemu/lib/common.bash
