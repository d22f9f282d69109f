package command

import (
	"fmt"
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
		_, err := identify(t.Context(), cluster, tt.source, &q)
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
	if _, err := identify(t.Context(), cluster, "shop/client", &q); err != nil || q.Source != "spiffe://prod.example/ns/shop/sa/client" {
		t.Errorf("in another trust domain: %+v, %v", q, err)
	}
}

func TestEndsOfConnections(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	cluster := &reach.Cluster{Client: fake.NewClientset(
		&corev1.Pod{ObjectMeta: meta("web-1"), Status: corev1.PodStatus{PodIP: "10.1.0.7", PodIPs: []corev1.PodIP{{IP: "10.1.0.7"}, {IP: "fd00::7"}}}},
		&corev1.Pod{ObjectMeta: meta("new")},
		&corev1.ServiceAccount{ObjectMeta: meta("client")},
		&corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1"}}},
		&corev1.Service{ObjectMeta: meta("headless"), Spec: corev1.ServiceSpec{ClusterIPs: []string{"None"}}},
	)}
	for _, tt := range []struct{ source, destination, want string }{
		{"shop/web-1", "web:80", "{Source:{Names:[shop/web-1] Hosts:[] Identities:[] Addresses:[10.1.0.7 fd00::7]} Destination:{Names:[] Hosts:[web.shop] Identities:[] Addresses:[10.96.0.1]} Port:80 Text:shop/web-1 → web:80}"},
		{"shop/client", "shop/web-1", "{Source:{Names:[] Hosts:[] Identities:[spiffe://cluster.local/ns/shop/sa/client] Addresses:[]} Destination:{Names:[shop/web-1] Hosts:[] Identities:[] Addresses:[10.1.0.7 fd00::7]} Port:0 Text:shop/client → shop/web-1}"},
		{"shop/gone", "db.example.com:5432", "{Source:{Names:[shop/gone] Hosts:[] Identities:[] Addresses:[]} Destination:{Names:[] Hosts:[db.example.com] Identities:[] Addresses:[]} Port:5432 Text:shop/gone → db.example.com:5432}"},
		{"10.1.0.9", "[fd00::7]:80", "{Source:{Names:[] Hosts:[] Identities:[] Addresses:[10.1.0.9]} Destination:{Names:[] Hosts:[] Identities:[] Addresses:[fd00::7]} Port:80 Text:10.1.0.9 → [fd00::7]:80}"},
		{"shop/client", "headless.shop.svc:80", "{Source:{Names:[] Hosts:[] Identities:[spiffe://cluster.local/ns/shop/sa/client] Addresses:[]} Destination:{Names:[] Hosts:[headless.shop.svc] Identities:[] Addresses:[]} Port:80 Text:shop/client → headless.shop.svc:80}"},
	} {
		p, err := pair(t.Context(), cluster, tt.source, tt.destination)
		if got := fmt.Sprintf("%+v", p); err != nil || got != tt.want {
			t.Errorf("%s %s is\n%s, %v; want\n%s", tt.source, tt.destination, got, err, tt.want)
		}
	}
	for destination, want := range map[string]string{
		"shop/web-1:80": "10.1.0.7:80", "web:80": "web:80", "shop/new:80": "pod shop/new has no address yet", "shop/gone:80": "looking for pod shop/gone",
	} {
		got, err := address(t.Context(), cluster, destination)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s is %s, want %s", destination, got, want)
		}
	}
}
