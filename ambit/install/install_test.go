package install

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/manifests"
	"github.com/ambit-mesh/ambit/manifests/crd"
)

func TestObjectsKeepTheOrderAndDropWhatIsEmpty(t *testing.T) {
	files := []manifests.File{
		{Name: "a.yaml", Body: []byte("# a comment\napiVersion: v1\nkind: Namespace\nmetadata: {name: one}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: two, namespace: one}\n")},
		{Name: "crds.yaml", Body: []byte("---\nkind: CustomResourceDefinition\nmetadata: {name: three}\n---\n# nothing\n")},
		{Name: "kustomization.yaml", Body: []byte("kind: Kustomization\n")},
	}
	objs, err := Objects(files)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objs {
		got = append(got, name(o))
	}
	if want := "namespace/one|configmap/two in one|customresourcedefinition/three"; strings.Join(got, "|") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if _, err := Objects([]manifests.File{{Name: "bad.yaml", Body: []byte("a: [")}}); err == nil || !strings.Contains(err.Error(), "bad.yaml") {
		t.Errorf("an unreadable file: %v", err)
	}
}

func TestTheRealManifestsAreObjects(t *testing.T) {
	files, err := manifests.Render(manifests.Config{}, crd.Definitions{})
	if err != nil {
		t.Fatal(err)
	}
	objs, err := Objects(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(objs) < 10 || name(objs[0]) != "namespace/istio-system" {
		t.Errorf("%d objects, the first %s", len(objs), name(objs[0]))
	}
}

func TestWhenADaemonSetCountsAsRolledOut(t *testing.T) {
	status := func(observed int64, desired, updated, available int32) *appsv1.DaemonSet {
		return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Status: appsv1.DaemonSetStatus{
			ObservedGeneration: observed, DesiredNumberScheduled: desired, UpdatedNumberScheduled: updated, NumberAvailable: available,
		}}
	}
	for _, tt := range []struct {
		ds   *appsv1.DaemonSet
		want string
	}{
		{status(2, 2, 2, 2), ""},
		{status(1, 2, 2, 2), "the change is not seen yet"},
		{status(2, 0, 0, 0), "there is no node for it yet"},
		{status(2, 2, 1, 2), "1 of 2 nodes are ready"},
		{status(2, 2, 2, 0), "0 of 2 nodes are ready"},
	} {
		if got := daemonSetState(tt.ds); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.ds.Status, got, tt.want)
		}
	}
}

func TestWhenADeploymentCountsAsRolledOut(t *testing.T) {
	one := int32(1)
	for _, tt := range []struct {
		status appsv1.DeploymentStatus
		want   string
	}{
		{appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}, ""},
		{appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}, "the change is not seen yet"},
		{appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1}, "0 of 1 replicas are ready"},
		{appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 2, UpdatedReplicas: 1, AvailableReplicas: 2}, "the old replica still runs"},
	} {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: appsv1.DeploymentSpec{Replicas: &one}, Status: tt.status}
		if got := deploymentState(d); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.status, got, tt.want)
		}
	}
}

func TestTheCleanUpPodUndoesTheAgentOnItsNode(t *testing.T) {
	agent := &appsv1.DaemonSet{}
	agent.Spec.Template.Spec = corev1.PodSpec{
		HostPID: true,
		Containers: []corev1.Container{{
			Name: "install-cni", Image: "x", Args: []string{"agent"}, ReadinessProbe: &corev1.Probe{}, LivenessProbe: &corev1.Probe{},
			VolumeMounts: []corev1.VolumeMount{{Name: "cni-bin-dir"}},
		}},
	}
	a, b := cleanupPod(agent, "node-a"), cleanupPod(agent, "node-b")
	if a.Name == b.Name || a.Spec.NodeName != "node-a" || a.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		t.Errorf("names %s and %s, node %s, restart %s", a.Name, b.Name, a.Spec.NodeName, a.Spec.RestartPolicy)
	}
	ct := a.Spec.Containers[0]
	if ct.Args[0] != "uninstall" || ct.ReadinessProbe != nil || ct.LivenessProbe != nil || len(ct.VolumeMounts) != 1 || !a.Spec.HostPID {
		t.Errorf("container %+v", ct)
	}
	if agent.Spec.Template.Spec.Containers[0].Args[0] != "agent" {
		t.Error("the agent's own template was changed")
	}
}

func TestWhyAPodIsNotReady(t *testing.T) {
	waiting := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}}}
	for _, tt := range []struct {
		pod  corev1.PodStatus
		want string
	}{
		{corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Ready: true}}}, ""},
		{corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting}}, "ErrImagePull: no such image"},
		{corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}, "running but not ready"},
		{corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no node fits"}}}, "no node fits"},
		{corev1.PodStatus{Phase: corev1.PodPending}, "Pending"},
	} {
		if got := strings.Join(podReasons(&corev1.Pod{Status: tt.pod}), "; "); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
