// Package apply writes a user's objects to the cluster, on the server's side, or
// deletes them, and tells which versions they became: `ambit apply` and `ambit
// delete`.
//
// It owns how files are read and which field manager speaks. It refuses to wait
// for anything: ambit/ask knows who serves a version. Called by ambit/command.
package apply

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
)

// Options of an application.
type Options struct {
	// Namespace is that of objects without one; empty is "default".
	Namespace string
	// Manager owns the fields; empty is kubectl's, so that both commands may be
	// used on one object.
	Manager string
	// Force takes fields that another manager has set.
	Force bool
	// DryRun lets the server check everything and write nothing.
	DryRun bool
}

// Read reads the objects of files and directories; "-" is stdin.
func Read(paths []string, stdin io.Reader) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, path := range paths {
		texts, err := texts(path, stdin)
		if err != nil {
			return nil, err
		}
		for _, t := range texts {
			objs, err := parse(t.text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			out = append(out, objs...)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no object in %s", strings.Join(paths, ", "))
	}
	return out, nil
}

type text struct {
	name string
	text []byte
}

func texts(path string, stdin io.Reader) ([]text, error) {
	if path == "-" {
		b, err := io.ReadAll(stdin)
		return []text{{"standard input", b}}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = manifestsIn(path); err != nil {
			return nil, err
		}
	}
	var out []text
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		out = append(out, text{f, b})
	}
	return out, nil
}

// manifestsIn are the files of a directory itself that look like manifests.
func manifestsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

func parse(b []byte) ([]*unstructured.Unstructured, error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b)))
	var out []*unstructured.Unstructured
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &obj.Object); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(obj.Object) == 0 {
			continue
		}
		if obj.IsList() {
			list, err := obj.ToList()
			if err != nil {
				return nil, fmt.Errorf("document %d: %w", n, err)
			}
			for i := range list.Items {
				out = append(out, &list.Items[i])
			}
			continue
		}
		out = append(out, obj)
	}
}

// To applies the objects in their order and gives the versions that they became.
// It stops at the first that is refused.
func To(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured, o Options, progress io.Writer) ([]ask.Version, error) {
	if o.Namespace == "" {
		o.Namespace = metav1.NamespaceDefault
	}
	if o.Manager == "" {
		o.Manager = "kubectl"
	}
	options := metav1.ApplyOptions{FieldManager: o.Manager, Force: o.Force}
	word := "applied"
	if o.DryRun {
		options.DryRun = []string{metav1.DryRunAll}
		word = "would apply"
	}
	var out []ask.Version
	for _, obj := range objs {
		if err := whole(obj); err != nil {
			return out, err
		}
		if err := place(c, obj, o.Namespace); err != nil {
			return out, err
		}
		ri, err := c.Resource(obj)
		if err != nil {
			return out, err
		}
		now, err := ri.Apply(ctx, obj.GetName(), obj, options)
		if err != nil {
			return out, fmt.Errorf("applying %s: %w", version(obj), err)
		}
		out = append(out, version(now))
		fmt.Fprintf(progress, "%s %s\n", word, version(now))
	}
	return out, nil
}

// Delete deletes the objects in the reverse of their order, and gives the last
// versions of those that were there.
func Delete(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured, namespace string, progress io.Writer) ([]ask.Version, error) {
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	var out []ask.Version
	for _, obj := range slices.Backward(objs) {
		if err := whole(obj); err != nil {
			return out, err
		}
		if err := place(c, obj, namespace); err != nil {
			return out, err
		}
		ri, err := c.Resource(obj)
		if err != nil {
			return out, err
		}
		now, err := ri.Get(ctx, obj.GetName(), metav1.GetOptions{})
		if err == nil {
			err = ri.Delete(ctx, obj.GetName(), metav1.DeleteOptions{})
		}
		switch {
		case apierrors.IsNotFound(err):
			fmt.Fprintf(progress, "absent %s\n", version(obj))
			continue
		case err != nil:
			return out, fmt.Errorf("deleting %s: %w", version(obj), err)
		}
		v := version(now)
		v.Gone = true
		out = append(out, v)
		fmt.Fprintf(progress, "deleted %s\n", v)
	}
	return out, nil
}

// whole is an error for what cannot be named.
func whole(obj *unstructured.Unstructured) error {
	switch {
	case obj.GetKind() == "" || obj.GetAPIVersion() == "":
		return errors.New("a document without apiVersion or kind: this is no Kubernetes object")
	case obj.GetName() == "":
		return fmt.Errorf("a %s without a name", obj.GetKind())
	}
	return nil
}

// place gives an object its namespace where it needs one.
func place(c *reach.Cluster, obj *unstructured.Unstructured, namespace string) error {
	if obj.GetNamespace() != "" {
		return nil
	}
	namespaced, err := c.Namespaced(obj)
	if err == nil && namespaced {
		obj.SetNamespace(namespace)
	}
	return err
}

func version(obj *unstructured.Unstructured) ask.Version {
	return ask.Version{
		APIVersion: obj.GetAPIVersion(), Kind: obj.GetKind(), Namespace: obj.GetNamespace(), Name: obj.GetName(),
		ResourceVersion: obj.GetResourceVersion(),
	}
}
