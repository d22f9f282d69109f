// Package crd picks the custom resource definitions that the mesh installs out
// of the file that the istio.io/api module carries. It owns which kinds those
// are; it refuses to write or change a definition, because users and upstream
// tools expect exactly the module's. Called by manifests.
package crd

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"sigs.k8s.io/yaml"
)

// Kinds are the definitions that some part of the mesh reads today. A kind
// that nothing reads is not installed: an object that is accepted and then
// ignored would look like protection.
var Kinds = []string{
	"authorizationpolicies.security.istio.io",
	"peerauthentications.security.istio.io",
}

// SourceFile is where the module keeps all definitions, below its root.
const SourceFile = "kubernetes/customresourcedefinitions.gen.yaml"

// EmbeddedFile is what the build writes before compiling, so that the ambit
// command needs no file beside it.
const EmbeddedFile = "files/security.gen.yaml"

//go:embed files
var embedded embed.FS

// ErrNotBuiltIn is returned by Embedded in a binary that was built without
// `make`.
var ErrNotBuiltIn = errors.New("this binary was built without the custom resource definitions; build it with `make build/bin/ambit`, or give --manifests the directory written by `make manifests`")

// Embedded returns the definitions compiled into this binary.
func Embedded() ([]byte, error) {
	b, err := embedded.ReadFile(EmbeddedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotBuiltIn
	}
	return b, err
}

// Select returns the documents of all that define the given kinds, in the
// order of kinds. A kind that is missing is an error.
func Select(all []byte, kinds []string) ([]byte, error) {
	found := map[string]string{}
	for doc := range strings.SplitSeq(string(all), "\n---\n") {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if !mentionsAny(doc, kinds) {
			continue // parsing megabytes of unwanted schema takes seconds
		}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			return nil, fmt.Errorf("reading a definition: %w", err)
		}
		if head.Kind == "CustomResourceDefinition" {
			found[head.Metadata.Name] = doc
		}
	}
	var out strings.Builder
	for _, kind := range kinds {
		doc, ok := found[kind]
		if !ok {
			return nil, fmt.Errorf("no definition of %s among %d bytes", kind, len(all))
		}
		out.WriteString("---\n" + strings.TrimSpace(doc) + "\n")
	}
	return []byte(out.String()), nil
}

func mentionsAny(doc string, kinds []string) bool {
	for _, kind := range kinds {
		if strings.Contains(doc, "name: "+kind) {
			return true
		}
	}
	return false
}
