package images

import (
	"cmp"
	"context"
	"fmt"
	"runtime"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// architecture is the one that images are built for: the machine's own.
const architecture = runtime.GOARCH

// Push sends archives that Build made to a registry, below a prefix such as
// registry.example/team and under a tag (empty means Tag). Credentials are
// those of the user's docker login.
func Push(ctx context.Context, cfg Config, prefix, tag string) error {
	if err := cfg.defaults(); err != nil {
		return err
	}
	chosen, err := choose(cfg.Names)
	if err != nil {
		return err
	}
	for _, img := range chosen {
		ref, err := name.NewTag(fmt.Sprintf("%s/%s:%s", prefix, img.Name, cmp.Or(tag, Tag)))
		if err != nil {
			return fmt.Errorf("image repository %q: %w", prefix, err)
		}
		image, err := compressed(Archive(cfg.Out, img.Name))
		if err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
		if err := remote.Write(ref, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
		cfg.Log.Info("image pushed", "image", ref.String())
	}
	return nil
}

// compressed reads an archive and compresses its layers, as registries expect.
func compressed(archive string) (v1.Image, error) {
	packed, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return nil, err
	}
	layers, err := packed.Layers()
	if err != nil {
		return nil, err
	}
	file, err := packed.ConfigFile()
	if err != nil {
		return nil, err
	}
	image := empty.Image
	for _, l := range layers {
		zipped, err := tarball.LayerFromOpener(l.Uncompressed)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, zipped); err != nil {
			return nil, err
		}
	}
	with, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	with = with.DeepCopy()
	with.OS, with.Architecture, with.Created, with.Config = file.OS, file.Architecture, file.Created, file.Config
	return mutate.ConfigFile(image, with)
}
