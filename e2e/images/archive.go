package images

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive packs the tree as the single layer of an image and writes the
// image as a docker-archive, by a rename, so that nobody reads half of one.
func writeArchive(t *tree, img Image, out, work string) error {
	layer, err := newFileLayer(t, filepath.Join(work, img.Name+".layer.tar"))
	if err != nil {
		return err
	}
	defer os.Remove(layer.file)
	image, err := compose(img, layer)
	if err != nil {
		return err
	}
	ref, err := name.NewTag(img.reference())
	if err != nil {
		return err
	}
	tmp := out + ".new"
	if err := tarball.WriteToFile(tmp, ref, image); err != nil {
		return fmt.Errorf("write %s: %w", tmp, err)
	}
	return os.Rename(tmp, out)
}

// compose puts layer and configuration together.
func compose(img Image, layer v1.Layer) (v1.Image, error) {
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", architecture
	file.Created = v1.Time{Time: epoch}
	labels := map[string]string{"org.opencontainers.image.title": img.Name}
	if img.Version != "" {
		labels["org.opencontainers.image.version"] = img.Version
	}
	file.Config = v1.Config{
		Entrypoint: img.Entrypoint, Env: img.Env, User: img.User, WorkingDir: "/", Labels: labels,
	}
	return mutate.ConfigFile(image, file)
}

// fileLayer is a layer that lies uncompressed in a file. Compressing it would
// take longer than everything else, and containerd would undo it at once.
type fileLayer struct {
	file string
	hash v1.Hash
	size int64
}

func newFileLayer(t *tree, file string) (*fileLayer, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if err := t.write(io.MultiWriter(f, h)); err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	sum := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return &fileLayer{file: file, size: size, hash: sum}, nil
}

// Digest, DiffID and the rest make fileLayer a v1.Layer.
func (l *fileLayer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.file) }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return types.DockerUncompressedLayer, nil }
