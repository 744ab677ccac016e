# voxedge: each target sets up what it needs on a fresh Debian machine with Rust, says what it does,
# and ends with a verdict line.
#
#   make demo    build, then real calls on loopback: no account, no key
#   make test    build, lints, format, every test
#   make bench   figures (not timed tests)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test bench

# Packages by what shows that they are there already.
BUILD_PACKAGES := cc:build-essential cmake:cmake
# Libraries that are opened at run time, by what shows that they are there.
CODEC_PACKAGES := libopencore-amrwb.so.0:libopencore-amrwb0 libvo-amrwbenc.so.0:libvo-amrwbenc0
TEST_PACKAGES := sipp:sip-tester baresip:baresip-core kamailio:kamailio kamailio:kamailio-tls-modules ffmpeg:ffmpeg systemd-analyze:systemd
# The bench `quality`: Python that scores, and voices that speak; without them it says less.
QUALITY_PACKAGES := python3:python3-venv python3:python3-dev /usr/share/pocketsphinx/test/data:pocketsphinx-testdata

# Installs what is missing: `$(call install,$(LIST))`.
define install
	missing=""
	for pair in $(1); do
		command -v "$${pair%%:*}" >/dev/null 2>&1 || [ -d "$${pair%%:*}" ] || /sbin/ldconfig -p | grep -F "$${pair%%:*} (" >/dev/null || missing="$$missing $${pair#*:}"
	done
	if [ -n "$$missing" ]; then
		root=""
		if [ "$$(id -u)" != 0 ]; then
			command -v sudo >/dev/null 2>&1 || { echo "make: missing:$$missing; run as root: apt-get install$$missing"; exit 1; }
			root="sudo"
		fi
		echo "make: installing$$missing"
		$$root apt-get update -qq
		DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends $$missing >/dev/null
	fi
	command -v cargo >/dev/null 2>&1 || { echo "make: Rust is missing; see https://rustup.rs"; exit 1; }
endef

help:
	@sed -n '1,6s/^# \{0,1\}//p' $(MAKEFILE_LIST)

demo:
	@$(call install,$(BUILD_PACKAGES) $(CODEC_PACKAGES))
	echo "make: building (the first time takes some minutes)"
	cargo build --release --bin voxedge
	target="$${CARGO_TARGET_DIR:-target}"
	if "$$target/release/voxedge" demo; then
		echo "make demo: done"
	else
		echo "make demo: FAILED"; exit 1
	fi

test:
	@trap 'echo "make test: FAILED"' ERR
	$(call install,$(BUILD_PACKAGES) $(CODEC_PACKAGES) $(TEST_PACKAGES))
	echo "make: build";  cargo build --all-targets
	echo "make: lints";  cargo clippy --all-targets -- -D warnings
	echo "make: format"; cargo fmt --check
	echo "make: tests"
	if cargo nextest --version >/dev/null 2>&1; then
		cargo nextest run --no-fail-fast
		cargo test --doc
	else
		cargo test --no-fail-fast
	fi
	trap - ERR
	echo "make test: all green"

bench:
	@trap 'echo "make bench: FAILED"' ERR
	$(call install,$(BUILD_PACKAGES) $(CODEC_PACKAGES))
	quick="--warm-up-time 1 --measurement-time 2"
	for bench in sip_parse offer_answer codecs media_session; do cargo bench --bench $$bench -- $$quick; done
	cargo bench --bench registrations
	cargo bench --bench setups
	cargo bench --bench load
	cargo bench --bench load -- --codec all
	cargo bench --bench load -- --overload
	$(call install,$(QUALITY_PACKAGES))
	cargo bench --bench quality
	trap - ERR
	echo "make bench: done"
