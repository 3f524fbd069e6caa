# What people and CI run. `make test` installs what the tests need and is missing.
CARGO ?= cargo

.PHONY: build demo test test-busy chaos soak sim lint doc fuzz bench bench-full

# The three programs, and nothing that only measures or tests them.
build:
	$(CARGO) build --release --locked -p cli -p proxy-server -p proxy-agent --bins

demo:
	$(CARGO) run --release --locked --bin cluster-proxy -- demo

# One choice of crates and features for both: another would compile every dependency a second time. Errors come without
# backtraces, which name the executor's frames only and push the error itself out of a log that is cut.
test:
	bash tests/install.sh
	$(CARGO) build --workspace --all-targets --features fuzz/libfuzzer --locked
	RUST_LIB_BACKTRACE=0 $(CARGO) test --workspace --features fuzz/libfuzzer --locked

# Every scenario so many times in a row beside loops that keep the processors busy. Each run's output is in target/busy.
BUSY_RUNS ?= 10
BUSY_LOOPS ?= 3
BUSY_FILTER ?=

test-busy:
	bash tests/install.sh
	$(CARGO) build --workspace --all-targets --features fuzz/libfuzzer --locked
	CARGO="$(CARGO)" RUNS=$(BUSY_RUNS) LOOPS=$(BUSY_LOOPS) OUT=$(TARGET)/busy bash tests/busy.sh $(BUSY_FILTER)

# Every fault alone and in pairs, beside the bounds: writes docs/faults.md. What `make test` runs is a selection of it.
CHAOS_SEED ?= 12
CHAOS_JOBS ?= 12
CHAOS_FILTER ?=
# Faults drawn from a seed for so long, on one site that must neither lose anything nor grow.
SOAK_SECONDS ?= 3600
SOAK_SEED ?= 12

chaos:
	bash tests/install.sh
	$(CARGO) build --workspace --all-targets --features fuzz/libfuzzer --locked
	mkdir -p docs
	CHAOS_SEED=$(CHAOS_SEED) CHAOS_JOBS=$(CHAOS_JOBS) CHAOS_FILTER="$(CHAOS_FILTER)" \
	CHAOS_TABLE=$(if $(CHAOS_FILTER),,$(CURDIR)/docs/faults.md) \
	$(CARGO) test --workspace --features fuzz/libfuzzer --locked --test chaos every_fault -- --include-ignored --nocapture

soak:
	bash tests/install.sh
	$(CARGO) build --workspace --all-targets --features fuzz/libfuzzer --locked
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) \
	$(CARGO) test --workspace --features fuzz/libfuzzer --locked --test chaos a_long_run -- --include-ignored --nocapture

# The congestion controller over many links in virtual time, with tables. Half an hour, and a quarter for each further seed.
SIM_SEEDS ?= 1

sim:
	SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test --locked -p tunnel --lib simulation -- --include-ignored --nocapture

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features fuzz/libfuzzer --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

# Fuzzes one target after the other. Inputs that taught something stay in target/fuzz/<target>, and so does one that breaks it.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= head gateway_path forward socks5 hpack packets wire yaml protobuf patch selector
FUZZ_FLAGS = -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -len_control=10 -timeout=20 -rss_limit_mb=1024 -print_final_stats=1

fuzz:
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrument.sh \
	$(CARGO) build --workspace --bin fuzz --features fuzz/libfuzzer --locked
	for target in $(FUZZ_TARGETS); do folder=$(TARGET)/fuzz/$$target; mkdir -p $$folder && \
	$(TARGET)/debug/fuzz $$folder -artifact_prefix=$$folder/ $(FUZZ_FLAGS) || exit 1; done

# The programs that answer the questions of bench/README.md, in their order.
QUESTIONS = bulk requests connections beside loss rough_links shared_links stalls idle recovery many_clusters
TARGET ?= $(or $(CARGO_TARGET_DIR),target)

# Asks all questions in the short form, within 8 minutes after the build, and prints every figure beside its target.
bench: FORM = --short
# The same with all numbers of streams and connections, and for long enough to be quoted.
bench-full: FORM =

bench bench-full:
	$(CARGO) build --release --locked --bins
	rm -rf $(TARGET)/bench
	failed=; for question in $(QUESTIONS); do $(TARGET)/release/$$question $(FORM) || failed="$$failed $$question"; done; \
	$(TARGET)/release/report && test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
