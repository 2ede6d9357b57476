"""A live job that uses every key: evaluated in one test, printed as a command line in another."""

JOB = """\
defaults:
  env: {A: 1}
  tags: [t1]
  volumes: [storage:d:/d]
  workdir: /w
  life_span: 1d
  preset: cpu
  schedule_timeout: 90
images:
  im: {ref: image:im:v1}
volumes:
  vv: {remote: storage:vol, mount: /vol, read_only: true}
  ww: {remote: storage:other, mount: /other, read_only: true}
jobs:
  job_a:
    image: ${{ images.im.ref }}
    volumes: ["${{ volumes.vv.ref }}", "${{ volumes.ww.ref_rw }}"]
    env: {B: "${{ env.A }}2", A: over}
    tags: [t2]
    http_port: 8080
    http_auth: false
    browse: true
    detach: true
    port_forward: ["1:2"]
    pass_config: true
    restart: always
    entrypoint: ep
    params: {p: P}
    bash: echo ${{ params.p }} "$X"
"""
