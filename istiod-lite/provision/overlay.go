package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// LabelDefaults is on ConfigMaps in the control plane's namespace that overlay
// every waypoint of the class that it names.
const LabelDefaults = "gateway.istio.io/defaults-for-class"

// overlay is the data of a ConfigMap: a partial object for each key.
type overlay struct {
	name string // for errors
	data map[string]string
}

// overlays are those of a waypoint, in the order in which they are laid: the
// class's defaults, of several the oldest, and then what the Gateway names.
func (w waypoint) overlays(set *objects.Set) ([]overlay, error) {
	var out []overlay
	if d := w.defaults(set); d != nil {
		out = append(out, overlay{d.Namespace + "/" + d.Name, d.Data})
	}
	k, named, err := w.parameters()
	if err != nil || !named {
		return out, err
	}
	cm := set.ConfigMaps[k]
	if cm == nil {
		return nil, fmt.Errorf("ConfigMap %s of parametersRef is not there", k)
	}
	return append(out, overlay{k.String(), cm.Data}), nil
}

func (w waypoint) defaults(set *objects.Set) *corev1.ConfigMap {
	var found *corev1.ConfigMap
	for k, cm := range set.ConfigMaps {
		if k.Namespace != w.settings.Namespace || cm.Labels[LabelDefaults] != string(w.gateway.Spec.GatewayClassName) {
			continue
		}
		if found == nil || cm.CreationTimestamp.Before(&found.CreationTimestamp) || cm.CreationTimestamp.Equal(&found.CreationTimestamp) && cm.Name < found.Name {
			found = cm
		}
	}
	return found
}

// parameters is the ConfigMap that a Gateway names.
func (w waypoint) parameters() (k objects.Key, named bool, err error) {
	i := w.gateway.Spec.Infrastructure
	if i == nil || i.ParametersRef == nil {
		return k, false, nil
	}
	if i.ParametersRef.Group != "" || i.ParametersRef.Kind != "ConfigMap" {
		return k, false, fmt.Errorf("parametersRef is a %s of group %q: only a ConfigMap is understood", i.ParametersRef.Kind, i.ParametersRef.Group)
	}
	return objects.Key{Namespace: w.gateway.Namespace, Name: i.ParametersRef.Name}, true, nil
}

// piece is one of the objects that make up a waypoint, by its key in overlays.
type piece struct {
	key string
	// always says that it is there without an overlay.
	always bool
	made   metav1.Object
	// empty makes an object of its type; keep restores what overlays cannot
	// change.
	empty func() metav1.Object
	keep  func(metav1.Object)
}

func (w waypoint) pieces() []piece {
	return []piece{
		{"serviceAccount", true, w.account(), func() metav1.Object { return &corev1.ServiceAccount{} }, func(metav1.Object) {}},
		{"deployment", true, w.deployment(), func() metav1.Object { return &appsv1.Deployment{} }, func(o metav1.Object) {
			d := o.(*appsv1.Deployment)
			d.Spec.Selector = &metav1.LabelSelector{MatchLabels: w.selector()}
			d.Spec.Template.Labels = over(d.Spec.Template.Labels, w.selector(), map[string]string{LabelManaged: Managed, "istio.io/dataplane-mode": "none"})
			d.Spec.Template.Spec.ServiceAccountName = w.gateway.Name
		}},
		{"service", true, w.service(), func() metav1.Object { return &corev1.Service{} }, func(o metav1.Object) {
			o.(*corev1.Service).Spec.Selector = w.selector()
		}},
		{"horizontalPodAutoscaler", false, w.autoscaler(), func() metav1.Object { return &autoscalingv2.HorizontalPodAutoscaler{} }, func(o metav1.Object) {
			o.(*autoscalingv2.HorizontalPodAutoscaler).Spec.ScaleTargetRef = w.autoscaler().Spec.ScaleTargetRef
		}},
		{"podDisruptionBudget", false, w.budget(), func() metav1.Object { return &policyv1.PodDisruptionBudget{} }, func(o metav1.Object) {
			o.(*policyv1.PodDisruptionBudget).Spec.Selector = &metav1.LabelSelector{MatchLabels: w.selector()}
		}},
	}
}

// over gives labels with others laid over them.
func over(labels map[string]string, others ...map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	for _, o := range others {
		maps.Copy(out, o)
	}
	return out
}

func (w waypoint) autoscaler() *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		ObjectMeta: w.meta(),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: w.gateway.Name},
		},
	}
}

func (w waypoint) budget() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: w.meta(),
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: w.selector()}},
	}
}

// objects makes everything of a waypoint, or says why its overlays cannot be
// laid: then nothing of it is changed.
func (w waypoint) objects(set *objects.Set) ([]*unstructured.Unstructured, error) {
	overlays, err := w.overlays(set)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, p := range w.pieces() {
		o, wanted, err := p.lay(overlays)
		if err != nil {
			return nil, err
		}
		if !wanted {
			continue
		}
		meta := w.meta()
		o.SetName(meta.Name)
		o.SetNamespace(meta.Namespace)
		o.SetOwnerReferences(meta.OwnerReferences)
		o.SetLabels(over(o.GetLabels(), w.selector(), map[string]string{LabelManaged: Managed, LabelClass: meta.Labels[LabelClass]}))
		p.keep(o)
		out = append(out, encode(o))
	}
	return out, nil
}

// lay lays overlays over the piece, as strategic merges.
func (p piece) lay(overlays []overlay) (metav1.Object, bool, error) {
	wanted, done := p.always, p.made
	for _, over := range overlays {
		text, has := over.data[p.key]
		if !has || strings.TrimSpace(text) == "" {
			continue
		}
		wanted = true
		next := p.empty()
		if err := p.merge(done, text, next); err != nil {
			return nil, false, fmt.Errorf("key %s of ConfigMap %s: %w", p.key, over.name, err)
		}
		done = next
	}
	return done, wanted, nil
}

// merge reads a partial object strictly, so that a field that its kind does not
// have is no surprise later.
func (p piece) merge(under any, text string, into metav1.Object) error {
	partial := p.empty()
	if err := yaml.UnmarshalStrict([]byte(text), partial); err != nil {
		return err
	}
	if err := onlyLabels(text); err != nil {
		return err
	}
	patch, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return err
	}
	base, err := json.Marshal(under)
	if err != nil {
		return err
	}
	merged, err := strategicpatch.StrategicMergePatch(base, patch, p.empty())
	if err != nil {
		return err
	}
	return json.Unmarshal(merged, into)
}

// onlyLabels refuses metadata that is not the user's to give.
func onlyLabels(text string) error {
	var head struct {
		Metadata map[string]any `json:"metadata"`
	}
	if err := yaml.Unmarshal([]byte(text), &head); err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(head.Metadata)) {
		if k != "labels" && k != "annotations" {
			return errors.New("metadata." + k + " cannot be set: only labels and annotations can")
		}
	}
	return nil
}
