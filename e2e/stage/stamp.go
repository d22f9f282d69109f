package stage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/e2e/images"
)

// stampKey is the pod annotation that changes with the image's content, so that
// a rebuilt image of an unchanged name is rolled out.
const stampKey = "ambit.dev/image-content"

// stamp marks the pod templates with their images' content. On somebody else's
// cluster the registry's tags have to do.
func (s *Stage) stamp(objs []*unstructured.Unstructured) error {
	if s.Cluster == nil {
		return nil
	}
	for _, obj := range objs {
		containers, found, err := unstructured.NestedSlice(obj.Object, "spec", "template", "spec", "containers")
		if err != nil || !found {
			continue
		}
		var sums []string
		for _, c := range containers {
			image, _, _ := unstructured.NestedString(c.(map[string]any), "image")
			name, _, _ := strings.Cut(path.Base(image), ":")
			sum, err := contentOf(images.Archive(filepath.Join(s.Checkout, "build", "images"), name))
			if err != nil {
				return fmt.Errorf("image of %s: %w", obj.GetName(), err)
			}
			sums = append(sums, sum)
		}
		if err := unstructured.SetNestedField(obj.Object, strings.Join(sums, "+"), "spec", "template", "metadata", "annotations", stampKey); err != nil {
			return err
		}
	}
	return nil
}

func contentOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
