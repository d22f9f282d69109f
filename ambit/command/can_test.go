package command

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
)

func TestWhoAsks(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	cluster := &reach.Cluster{Client: fake.NewClientset(
		&corev1.Pod{ObjectMeta: meta("client-1"), Spec: corev1.PodSpec{ServiceAccountName: "client"}, Status: corev1.PodStatus{PodIP: "10.1.0.5"}},
		&corev1.Pod{ObjectMeta: meta("plain")},
		&corev1.ServiceAccount{ObjectMeta: meta("client")},
	)}
	for _, tt := range []struct{ source, identity, address, says string }{
		{"shop/client-1", "spiffe://cluster.local/ns/shop/sa/client", "10.1.0.5", ""},
		{"shop/plain", "spiffe://cluster.local/ns/shop/sa/default", "", ""},
		{"shop/client", "spiffe://cluster.local/ns/shop/sa/client", "", ""},
		{"shop/nobody", "", "", "looking for a pod or service account shop/nobody"},
	} {
		var q decision.Question
		err := identify(t.Context(), cluster, tt.source, &q)
		if q.Source != tt.identity || q.Address != tt.address || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s is %+v, %v; want %+v", tt.source, q, err, tt)
		}
	}
	_, err := cluster.Client.CoreV1().ConfigMaps("istio-system").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "istio"}, Data: map[string]string{"mesh": "trustDomain: prod.example\naccessLogFile: /dev/stdout\n"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var q decision.Question
	if err := identify(t.Context(), cluster, "shop/client", &q); err != nil || q.Source != "spiffe://prod.example/ns/shop/sa/client" {
		t.Errorf("in another trust domain: %+v, %v", q, err)
	}
}
