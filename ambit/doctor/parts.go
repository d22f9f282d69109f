package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// Part is one workload of the installation. Want is 0 when it is absent.
type Part struct {
	Name        string
	Want, Ready int
	Images      []string
}

func judgeForeign(foreign []string) []Finding {
	var all []Finding
	for _, part := range foreign {
		all = append(all, Finding{Fail, "other mesh", part + " is not ours", "two meshes cannot share istio-system; remove the other one first"})
	}
	return all
}

func judgeParts(facts Facts) []Finding {
	var all []Finding
	tags := map[string]bool{}
	for _, p := range facts.Parts {
		for _, image := range p.Images {
			tags[image[strings.LastIndex(image, ":")+1:]] = true
		}
		switch {
		case p.Want == 0:
			all = append(all, Finding{Fail, p.Name, "is not installed", "run: ambit install"})
		case p.Ready < p.Want:
			all = append(all, Finding{Fail, p.Name, fmt.Sprintf("%d of %d ready", p.Ready, p.Want), "kubectl -n istio-system get pods; kubectl -n istio-system describe pod …"})
		default:
			all = append(all, Finding{Level: OK, Check: p.Name, Detail: fmt.Sprintf("%d of %d ready", p.Ready, p.Want)})
		}
	}
	if len(tags) > 1 {
		all = append(all, Finding{Warn, "versions", "parts run different versions: " + strings.Join(slices.Sorted(maps.Keys(tags)), ", "), "finish the upgrade: ambit install"})
	}
	return all
}

func gatherParts(ctx context.Context, c *reach.Cluster, f *Facts) error {
	istiod, ztunnel, agent := Part{Name: "istiod"}, Part{Name: "ztunnel"}, Part{Name: "istio-cni-node"}
	d, err := c.Client.AppsV1().Deployments(manifests.Namespace).Get(ctx, istiod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("looking at istiod: %w", err)
	default:
		istiod.Want, istiod.Ready = int(d.Status.Replicas), int(d.Status.ReadyReplicas)
		if d.Spec.Replicas != nil {
			istiod.Want = int(*d.Spec.Replicas)
		}
		istiod.Images = images(d.Spec.Template.Spec)
		f.foreign(d.Labels, "Deployment istiod")
	}
	for _, p := range []*Part{&ztunnel, &agent} {
		ds, err := c.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("looking at %s: %w", p.Name, err)
		}
		p.Want, p.Ready = int(ds.Status.DesiredNumberScheduled), int(ds.Status.NumberReady)
		p.Images = images(ds.Spec.Template.Spec)
		f.foreign(ds.Labels, "DaemonSet "+p.Name)
	}
	f.Parts = []Part{istiod, agent, ztunnel}
	return nil
}

// foreign notes a part that carries a name of ours and not our label.
func (f *Facts) foreign(labels map[string]string, what string) {
	if labels[partOf] != "ambit" {
		f.Foreign = append(f.Foreign, what)
	}
}

func images(spec corev1.PodSpec) []string {
	var out []string
	for _, c := range spec.Containers {
		out = append(out, c.Image)
	}
	return out
}
