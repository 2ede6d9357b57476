package main

import (
	"context"
	"encoding/json"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// known answers with the configurations that the question brought along.
type known map[string]string

func (images known) ResolveImageConfig(
	_ context.Context, ref string, _ sourceresolver.Opt,
) (string, digest.Digest, []byte, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", "", nil, err
	}
	if config, ok := images[reference.FamiliarString(named)]; ok {
		return ref, "", []byte(config), nil
	}
	return ref, "", []byte(`{"architecture":"amd64","os":"linux"}`), nil
}

func plan(asked question) (any, error) {
	platform, err := platforms.Parse(asked.Platform)
	if err != nil {
		return nil, err
	}
	caps := pb.Caps.CapSet(pb.Caps.All())
	result, err := dockerfile2llb.Dockerfile2LLB(
		context.Background(), []byte(asked.Text), dockerfile2llb.ConvertOpt{
			Config: dockerui.Config{
				BuildArgs: asked.Args, Target: asked.Target,
				BuildPlatforms: []ocispecs.Platform{platform},
			},
			TargetPlatform: &platform,
			MetaResolver:   known(asked.Images),
			LLBCaps:        &caps,
		})
	if err != nil {
		return nil, err
	}
	definition, err := result.State.Marshal(context.Background())
	if err != nil {
		return nil, err
	}
	var operations []json.RawMessage
	for _, raw := range definition.Def {
		var op pb.Op
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, err
		}
		if op.GetOp() == nil {
			continue // the last one names the result
		}
		shown, err := json.Marshal(op.GetOp())
		if err != nil {
			return nil, err
		}
		operations = append(operations, shown)
	}
	return map[string]any{"image": result.Image, "operations": operations}, nil
}
