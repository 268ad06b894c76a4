# A core server. From the repository's root:
#   docker build --file deploy/docker/core.Dockerfile --tag slingshot-core:0.1.0 .
#
# torch brings the CUDA libraries that it was built with, so the base needs none, and the host only the driver and NVIDIA's
# container toolkit. For the CPU build, a tenth of the size, name PyTorch's index of CPU builds (pytorch.org has its
# address) as an extra-index-url in a file pip.conf:
#   docker build --secret id=pip,src=pip.conf …
#
# For Ray (deploy/ray): --build-arg EXTRAS=scale --tag slingshot-core-ray:0.1.0.
#
# It runs as any user but root, on a read-only root: /tmp has to be writable (docker run --read-only --tmpfs /tmp).

# The tag is pinned, its digest is not: set yours with --build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=core
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/slingshot
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/slingshot/bin/pip install torch --constraint constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY core_server core_server
COPY user_agent user_agent
COPY shared shared
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/slingshot/bin/pip install ".[${EXTRAS}]" --constraint constraints.txt \
    && /opt/slingshot/bin/pip check \
    && ln -s "$(/opt/slingshot/bin/python -c 'from ssd2.demo.paths import CORE; print(CORE)')" /opt/slingshot/demo-core
COPY --chmod=755 deploy/docker/is-answering /opt/slingshot/bin/

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/slingshot /opt/slingshot
# USER: torch asks for a name, and the container may run as a number that /etc/passwd lacks.
ENV PATH=/opt/slingshot/bin:$PATH HOME=/tmp USER=slingshot TMPDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# For a server with --ops-port 9464; models have ten minutes to load.
HEALTHCHECK --interval=10s --timeout=6s --start-period=600s \
    CMD ["is-answering", "http://127.0.0.1:9464/ready"]
ENTRYPOINT ["core-server"]
CMD ["--help"]
