# Myna with what was tested (constraints.txt). By default for CPUs:
#
#     docker build -t myna .
#
# PyPI's own build of PyTorch for Linux brings CUDA. The host needs NVIDIA's driver and container toolkit:
#
#     docker build -t myna:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#
# How to run it: docs/machines.md.
ARG BASE=python:3.12-slim
FROM ${BASE}

# torch.compile calls a C++ compiler, also for GPUs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 myna

WORKDIR /opt/myna
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src

# A version with a local part, such as 2.13.0+cpu, is preferred to the same one without. So the index decides.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url "${TORCH_INDEX}" '.[hub,serve]'

USER 1000
# Data and runs lie below: mount what is to stay.
WORKDIR /home/myna

ENTRYPOINT ["myna"]
CMD ["--help"]
