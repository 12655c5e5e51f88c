# Commands for contributors. `just` lists them.

default:
    @just --list

# Every check that a change must pass
check:
    .ci/run

# All tests, on real servers
test *args:
    contract-tests/run {{ args }}

# The trials of Redis and Postgres on every other version of the server, or on some: just versions redis6
versions *versions:
    contract-tests/versions {{ versions }}

# All stores under faults, and a check of the histories: just chaos SECONDS SEED WORKERS (RELIABILITY.md)
chaos seconds="60" seed="" workers="4":
    chaos/run "redis postgres firestore" {{ seconds }} "{{ seed }}" {{ workers }}

chaos-redis seconds="60" seed="" workers="4":
    chaos/run redis {{ seconds }} "{{ seed }}" {{ workers }}

chaos-postgres seconds="60" seed="" workers="4":
    chaos/run postgres {{ seconds }} "{{ seed }}" {{ workers }}

chaos-firestore seconds="60" seed="" workers="4":
    chaos/run firestore {{ seconds }} "{{ seed }}" {{ workers }}

# The tests on random inputs, with more of them than by default (RELIABILITY.md)
fuzz cases="20000":
    PROPTEST_CASES={{ cases }} cargo test -p syncguard-core -p syncguard-redis -p syncguard-postgres \
        -p syncguard-firestore --lib --test properties

# The contract suite, or a part of it: just contract redis::
contract *filter:
    cargo test -p contract-tests --test contract -- {{ filter }}

# The documentation, in a browser
doc:
    cargo doc --workspace --no-deps --all-features --open

# The benchmark: the cost of a lock, with and without contention (BENCHMARKS.md)
bench *args:
    cargo bench -p syncguard-bench -- {{ args }}

# Licenses, advisories, sources and duplicate versions of dependencies
deny:
    cargo deny check

# Compiles each package with each of its features alone
features:
    cargo run -p workspace-checks --bin features

# Compiles each package with the Rust version that it promises, if rustup has it
rust-versions:
    cargo run -p workspace-checks --bin rust_versions

# Compiles with the lowest versions of dependencies that Cargo.toml admits
minimal-versions:
    .ci/minimal-versions

# Starts Redis, Postgres and a Firestore emulator, for the examples and for tests
up:
    docker compose up -d --wait

# Stops the servers that `just up` started
down:
    docker compose down -v
