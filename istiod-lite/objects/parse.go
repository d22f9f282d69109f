package objects

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Parse reads a YAML text of many documents. Kinds that the mesh does not read
// are passed over, Lists are opened, and ConfigMap "istio" gives the mesh
// settings. Namespaced objects without a namespace are in "default". The same
// object twice, or a field that its kind does not have, is an error; errors
// name the document. What could be read is returned even so.
func Parse(text []byte) (Set, error) {
	var s Set
	s.Mesh = MeshConfig{}.WithDefaults()
	err := s.Read(text)
	return s, err
}

// Read parses like Parse into a Set that may hold objects already.
func (s *Set) Read(text []byte) error {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	seen := map[Ref]bool{}
	var errs []error
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err == nil {
			err = s.readDocument(doc, seen)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", n, err))
		}
	}
}

func (s *Set) readDocument(doc []byte, seen map[Ref]bool) error {
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return fmt.Errorf("reading its kind and name: %w", err)
	}
	name := fmt.Sprintf("%s %s", head.Kind, Key{head.Namespace, head.Name})
	switch {
	case head.Kind == "" && head.APIVersion == "" && empty(doc):
		return nil
	case head.Kind == "" || head.APIVersion == "":
		return errors.New("no apiVersion or no kind")
	case head.Kind == "List":
		return s.readList(doc, seen)
	case head.Kind == "ConfigMap" && head.Name == "istio":
		return s.readMesh(doc)
	}
	kind := read(head.APIVersion, Kind(head.Kind))
	if kind == nil {
		return nil
	}
	if head.Name == "" {
		return fmt.Errorf("%s: no name", head.Kind)
	}
	o := kind.make()
	if err := yaml.UnmarshalStrict(doc, o); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if m, ok := o.(metav1.Object); ok && !kind.cluster && m.GetNamespace() == "" {
		m.SetNamespace(metav1.NamespaceDefault) // as kubectl does
	}
	ref, err := s.Put(o)
	if err == nil && seen[ref] {
		err = errors.New("given twice")
	}
	seen[ref] = true
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (s *Set) readList(doc []byte, seen map[Ref]bool) error {
	var list struct {
		Items []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(doc, &list); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var errs []error
	for i, item := range list.Items {
		if err := s.readDocument(item.Raw, seen); err != nil {
			errs = append(errs, fmt.Errorf("item %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Set) readMesh(doc []byte) error {
	var cm corev1.ConfigMap
	if err := yaml.Unmarshal(doc, &cm); err != nil {
		return fmt.Errorf("ConfigMap istio: %w", err)
	}
	m, err := ParseMesh(cm.Data["mesh"], s.Mesh)
	if err != nil {
		return fmt.Errorf("ConfigMap istio: %w", err)
	}
	s.Mesh = m
	return nil
}

// empty reports whether a document holds nothing but space and comments.
func empty(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}
