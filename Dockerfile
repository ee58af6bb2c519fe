# The kit in a container: `docker build -t rmkit .`, then
#   docker run --rm -v rmkit-results:/kit/results/mini rmkit           # make reproduce
#   docker run --rm rmkit test                                         # make test
# A GPU: `--gpus all`. Without one, a CPU build of torch saves several GB:
#   docker build --build-arg TORCH_ARGS="--index-url ADDRESS" -t rmkit .   (PyTorch's install page gives the address)
# The Python is the one that the shipped record was made with; the image's digest is added before a release
# (docs/before_release.md).
FROM python:3.11.7-slim-bookworm

# Versions of these two do not touch a number.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 kit && mkdir /kit && chown kit /kit
USER 1000
WORKDIR /kit

# An activated environment outside the sources: make uses it, and a mounted clone finds it.
ENV VIRTUAL_ENV=/home/kit/venv
ENV PATH=$VIRTUAL_ENV/bin:$PATH
RUN python -m venv "$VIRTUAL_ENV"

COPY --chown=kit . .
ARG TORCH_ARGS=""
RUN make setup TORCH_ARGS="$TORCH_ARGS" && mkdir -p results/mini

ENTRYPOINT ["make"]
CMD ["reproduce"]
