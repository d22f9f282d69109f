package install

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/gateway-api/pkg/consts"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// The definitions of the Gateway API belong to the whole cluster: other
// controllers read the same objects, and often brought the definitions along.
// So they are one bundle with one owner. What somebody else installed is used
// as it is, never changed and never deleted; ours is brought up to date, but
// never to an older version or a smaller channel, which would lose fields of
// stored objects.

// bundled is a definition of the Gateway API: one that is wanted or one that
// the cluster has.
type bundled struct {
	name, version, channel string
	ours                   bool
}

func (b bundled) String() string { return b.version + " (" + b.channel + ")" }

// readBundled says whether an object is a definition of the Gateway API, and
// which.
func readBundled(obj *unstructured.Unstructured) (bundled, bool) {
	a := obj.GetAnnotations()
	if obj.GroupVersionKind().Group != crdGroup || !strings.Contains(obj.GetName(), ".gateway.networking.") {
		return bundled{}, false
	}
	return bundled{
		name: obj.GetName(), version: orUnknown(a[consts.BundleVersionAnnotation]), channel: orUnknown(a[consts.ChannelAnnotation]),
		ours: onlyOurs(obj.GetManagedFields()),
	}, true
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// onlyOurs is true if nobody but an installation of ours has written to an
// object, its status aside.
func onlyOurs(entries []metav1.ManagedFieldsEntry) bool {
	written := slices.DeleteFunc(slices.Clone(entries), func(e metav1.ManagedFieldsEntry) bool { return e.Subresource != "" })
	return len(written) > 0 && !slices.ContainsFunc(written, func(e metav1.ManagedFieldsEntry) bool { return e.Manager != fieldManager })
}

// choice is what is to be done about the wanted bundle.
type choice struct {
	// apply is the names of the definitions that are applied.
	apply []string
	// said is for the user: why not all are.
	said string
}

// choose decides about the wanted definitions by what the cluster has.
func choose(wanted, installed []bundled) choice {
	if len(wanted) == 0 || len(installed) == 0 {
		return choice{apply: names(wanted)}
	}
	target := wanted[0]
	theirs := slices.DeleteFunc(slices.Clone(installed), func(b bundled) bool { return b.ours })
	if other := slices.IndexFunc(theirs, func(b bundled) bool { return b.version != target.version || b.channel != target.channel }); other >= 0 {
		return choice{said: fmt.Sprintf("the definitions of the Gateway API are somebody else's, %s, and stay as they are; ambit is made for %s%s",
			theirs[other], target, lacking(wanted, installed))}
	}
	for _, b := range installed {
		switch {
		case newer(b.version, target.version):
			return choice{said: fmt.Sprintf("the definitions of the Gateway API are newer, %s, and stay as they are; this ambit is made for %s%s", b, target, lacking(wanted, installed))}
		case b.ours && b.channel == manifests.Experimental && target.channel != manifests.Experimental:
			return choice{said: fmt.Sprintf("the definitions of the Gateway API are of the experimental channel, %s, and stay so, because the standard one has fewer fields; bring them up to date with --gateway-api experimental", b.version)}
		}
	}
	missingOrOurs := slices.DeleteFunc(slices.Clone(wanted), func(w bundled) bool {
		return slices.ContainsFunc(theirs, func(b bundled) bool { return b.name == w.name })
	})
	return choice{apply: names(missingOrOurs)}
}

func names(list []bundled) []string {
	var out []string
	for _, b := range list {
		out = append(out, b.name)
	}
	return out
}

// lacking names the wanted kinds that the cluster does not have.
func lacking(wanted, installed []bundled) string {
	var missing []string
	for _, w := range wanted {
		if !slices.ContainsFunc(installed, func(b bundled) bool { return b.name == w.name }) {
			kind, _, _ := strings.Cut(w.name, ".")
			missing = append(missing, kind)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "; there will be no " + strings.Join(missing, ", ")
}

// newer reports whether version a comes after b. What is no version is not.
func newer(a, b string) bool {
	va, err := version.ParseSemantic(a)
	if err != nil {
		return false
	}
	vb, err := version.ParseSemantic(b)
	return err == nil && vb.LessThan(va)
}

// Respect takes out of the objects the definitions of the Gateway API that must
// not be applied on this cluster, and tells the user why.
func Respect(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured, progress io.Writer) ([]*unstructured.Unstructured, error) {
	wanted := bundledOf(objs)
	if len(wanted) == 0 {
		return objs, nil
	}
	installed, err := installed(ctx, c)
	if err != nil {
		return nil, err
	}
	chosen := choose(wanted, installed)
	if chosen.said != "" {
		fmt.Fprintf(progress, "kept    %s\n", chosen.said)
	}
	return withoutBundled(objs, func(b bundled) bool { return !slices.Contains(chosen.apply, b.name) }), nil
}

// keepForeign takes out of the objects the definitions of the Gateway API that
// are not ours on this cluster, so that they are not deleted.
func keepForeign(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	installed, err := installed(ctx, c)
	if err != nil {
		return nil, err
	}
	return withoutBundled(objs, func(b bundled) bool {
		return slices.ContainsFunc(installed, func(have bundled) bool { return have.name == b.name && !have.ours })
	}), nil
}

func bundledOf(objs []*unstructured.Unstructured) []bundled {
	var all []bundled
	for _, obj := range objs {
		if b, ok := readBundled(obj); ok {
			all = append(all, b)
		}
	}
	return all
}

// withoutBundled is the objects without the definitions of the Gateway API
// that are unwanted.
func withoutBundled(objs []*unstructured.Unstructured, unwanted func(bundled) bool) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objs), func(obj *unstructured.Unstructured) bool {
		b, ok := readBundled(obj)
		return ok && unwanted(b)
	})
}

// installed are the definitions of the Gateway API that the cluster has.
func installed(ctx context.Context, c *reach.Cluster) ([]bundled, error) {
	list, err := c.Dynamic.Resource(schema.GroupVersionResource{Group: crdGroup, Version: "v1", Resource: "customresourcedefinitions"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("looking for definitions of the Gateway API: %w", err)
	}
	var all []bundled
	for i := range list.Items {
		if b, ok := readBundled(&list.Items[i]); ok {
			all = append(all, b)
		}
	}
	return all, nil
}
