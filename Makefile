# Names the commands; what they do stands in scripts/. Variables for `make up`: docs/configuration.md.
.DEFAULT_GOAL := help
.PHONY: help up down training test oodeel bench-gateway bench-serving bench-overload prove-rollout lint format lock wire translations

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

up: ## install what is needed, start model server and gateway (PORT=8000), wait until ready
	@scripts/up.sh

down: ## stop what `make up` started
	@scripts/down.sh

training: ## install what `python -m training` needs into .venvs/serving
	@scripts/training.sh

test: ## install what is needed and run every test and linter
	@scripts/test.sh

oodeel: ## check the none scores' formulas against the library oodeel (installs it)
	@scripts/oodeel.sh

bench-gateway: ## measure what the gateway costs and adds, and the stack against the paper's Keras in Flask
	@scripts/bench_gateway.sh

bench-serving: ## measure the speed in process, through the model server and through the gateway
	@scripts/bench_serving.sh

bench-overload: ## measure what is answered in time at up to five times the capacity
	@scripts/bench_overload.sh

.PHONY: capacity
capacity: ## measure what a picture costs, hold a simulation to a run of the stack, plan a country
	@scripts/capacity.sh

.PHONY: bench-audit
bench-audit: ## measure what a record of the audit costs on this disk
	@scripts/bench_audit.sh

.PHONY: bench
bench: ## measure Dermserve beside other ways to serve the same model, in one run
	@scripts/bench.sh

.PHONY: load
load: ## send a gateway visits for some time (SHAPE= DURATION= PEAK= HOST= REAL=); fail where a promise is not kept
	@scripts/load.sh

prove-rollout: ## drive traffic through a whole roll-out on two replicas; count what is lost
	@scripts/prove_rollout.sh

.PHONY: rehearse
rehearse: ## upgrade, roll back, lose and restore under traffic; fail if anything is lost
	@scripts/rehearse.sh

.PHONY: soak
soak: ## keep a gateway under traffic (MINUTES=20) while everything breaks once and again; fail if anything is lost
	@scripts/soak.sh

.PHONY: lighthouse screenshots reduction black-box
lighthouse: ## measure the portal's pages with Lighthouse; fail where a score is too low
	@scripts/lighthouse.sh

screenshots: ## take pictures of the portal's main states into docs/screenshots
	@scripts/screenshots.sh

reduction: ## measure what the browser's reduction of photographs does to the answers
	@scripts/reduction.sh

black-box: ## perform the black-box table in a browser and write docs/black-box.md
	@scripts/black_box.sh

.PHONY: dashboards
dashboards: ## write Grafana's dashboards from the code in scripts/dashboards
	@scripts/dashboards.sh
.PHONY: images
images: ## build the container images with podman or docker, print their sizes, write their bills of materials into .images/
	@scripts/images.sh

lint: ## run the linters only
	@scripts/lint.sh

format: ## mend and format the Python code
	@scripts/format.sh

lock: ## solve requirements/*.in again and write the hashed locks
	@scripts/lock.sh

wire: ## generate the protobuf code from the .proto files
	@scripts/wire.sh

translations: ## take the templates' texts into the translations and compile them
	@scripts/translations.sh
