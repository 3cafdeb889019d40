# Every command, for CPUs:   docker build -t sct_lesion_losses .
# training on NVIDIA GPUs:   docker build -t sct_lesion_losses:gpu --build-arg EXTRAS=train,gpu,cluster .
# segmenting alone, small:   docker build -t sct_lesion_losses:small --build-arg EXTRAS=report,fast .
FROM python:3.12-slim-bookworm
ARG EXTRAS=train,cluster,fast
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE /src/
COPY sct_lesion_losses /src/sct_lesion_losses
RUN pip install --no-cache-dir --root-user-action ignore --constraint /src/constraints.txt "/src[$EXTRAS]" \
    && rm -r /src
# Containers are run as a user without a home.
ENV PYTHONNOUSERSITE=1 MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /data
CMD ["sct_deepseg_lesion_tuned", "-h"]
