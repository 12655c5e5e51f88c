# What a contributor types. `just` lists it.

default:
    @just --list

# Everything that must hold before a change is taken
check:
    .ci/run

# All tests, on real servers
test *args:
    contract-tests/run {{ args }}

# The contract suite alone, or a part of it: just contract redis::
contract *filter:
    cargo test -p contract-tests --test contract -- {{ filter }}

# The documentation, in a browser
doc:
    cargo doc --workspace --no-deps --all-features --open

# What a lock costs, alone and where many want it (BENCHMARKS.md)
bench *args:
    cargo bench -p syncguard-bench -- {{ args }}

# Licences, advisories and duplicate versions
deny:
    cargo deny check

# Redis, Postgres and a Firestore emulator, for examples and a tight loop of tests
up:
    docker compose up -d --wait

# Stops them
down:
    docker compose down -v
