// Package crd picks the custom resource definitions that the mesh installs out
// of the files that the modules of their authors carry. It owns which kinds
// those are; it refuses to write or change a definition, because users and
// upstream tools expect exactly the module's. Called by manifests.
package crd

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// Source is a set of definitions in a module, and what is taken of it.
type Source struct {
	// Module has the definitions as files.
	Module string
	// Path below the module's root: a file, or a directory of files.
	Path string
	// Kinds are what is installed of it: what some part of the mesh reads
	// today. A kind that nothing reads is not installed: an object that is
	// accepted and then ignored would look like protection.
	Kinds []string
	// Embedded is the file that the build writes before compiling, so that the
	// ambit command needs no file beside it.
	Embedded string
}

// Istio, Standard and Experimental are the sources: Istio's own kinds, and
// those of the Gateway API in each of its two channels. A cluster has one
// channel.
var (
	Istio = Source{
		Module: "istio.io/api", Path: "kubernetes/customresourcedefinitions.gen.yaml",
		Kinds: []string{
			"authorizationpolicies.security.istio.io",
			"peerauthentications.security.istio.io",
			"requestauthentications.security.istio.io",
			"destinationrules.networking.istio.io",
			"serviceentries.networking.istio.io",
		},
		Embedded: "istio.gen.yaml",
	}
	Standard = Source{
		Module: "sigs.k8s.io/gateway-api", Path: "config/crd/standard",
		Kinds: gatewayKinds, Embedded: "gateway-standard.gen.yaml",
	}
	Experimental = Source{
		Module: "sigs.k8s.io/gateway-api", Path: "config/crd/experimental",
		Kinds: append(append([]string{}, gatewayKinds...),
			"xmeshes.gateway.networking.x-k8s.io",
			"xbackendtrafficpolicies.gateway.networking.x-k8s.io"),
		Embedded: "gateway-experimental.gen.yaml",
	}
)

// gatewayKinds are in both channels, with more fields in the experimental one.
var gatewayKinds = []string{
	"gatewayclasses.gateway.networking.k8s.io",
	"gateways.gateway.networking.k8s.io",
	"httproutes.gateway.networking.k8s.io",
	"grpcroutes.gateway.networking.k8s.io",
	"tlsroutes.gateway.networking.k8s.io",
	"tcproutes.gateway.networking.k8s.io",
	"referencegrants.gateway.networking.k8s.io",
}

// Sources lists every source.
func Sources() []Source { return []Source{Istio, Standard, Experimental} }

// Definitions are the picked documents of every source.
type Definitions struct{ Istio, Standard, Experimental []byte }

// Collect gathers what read gives of every source.
func Collect(read func(Source) ([]byte, error)) (Definitions, error) {
	var d Definitions
	for _, part := range []struct {
		of Source
		to *[]byte
	}{{Istio, &d.Istio}, {Standard, &d.Standard}, {Experimental, &d.Experimental}} {
		b, err := read(part.of)
		if err != nil {
			return Definitions{}, err
		}
		*part.to = b
	}
	return d, nil
}

// EmbeddedDir is where the files of Source.Embedded stand, below this package.
const EmbeddedDir = "files"

//go:embed files
var embedded embed.FS

// ErrNotBuiltIn is returned by Embedded in a binary that was built without
// `make`.
var ErrNotBuiltIn = errors.New("this binary was built without the custom resource definitions; build it with `make build/bin/ambit`, or give --manifests the directory written by `make manifests`")

// Embedded returns the definitions compiled into this binary.
func Embedded() (Definitions, error) {
	return Collect(func(s Source) ([]byte, error) {
		b, err := embedded.ReadFile(EmbeddedDir + "/" + s.Embedded)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotBuiltIn
		}
		return b, err
	})
}

// Read picks a source's kinds out of its module, which lies in dir.
func (s Source) Read(dir string) ([]byte, error) {
	files, err := s.files(dir)
	if err != nil {
		return nil, fmt.Errorf("reading custom resource definitions: %w", err)
	}
	var all strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading custom resource definitions: %w", err)
		}
		all.WriteString("\n---\n" + string(b))
	}
	return Select([]byte(all.String()), s.Kinds)
}

// files are the source's files: its Path, or what is in it.
func (s Source) files(dir string) ([]string, error) {
	root := filepath.Join(dir, filepath.FromSlash(s.Path))
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{root}, nil
	}
	return filepath.Glob(filepath.Join(root, "*.yaml"))
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
