package kube

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
)

// The ConfigMap of mesh settings, and its key.
const (
	meshName = "istio"
	meshKey  = "mesh"
)

// putMesh queues the mesh settings. Text that cannot be read leaves the last
// settings, since the defaults could name another trust domain.
func (w *Watcher) putMesh(cm *corev1.ConfigMap, gone bool) {
	mesh := w.cfg.Mesh
	if !gone {
		var err error
		if mesh, err = objects.ParseMesh(cm.Data[meshKey], w.cfg.Mesh); err != nil {
			w.cfg.Logger.Error("mesh settings not taken, the last ones stay", "configmap", cm.Namespace+"/"+cm.Name, "reason", err)
			return
		}
	}
	if mesh.Version = ""; !gone {
		mesh.Version = cm.ResourceVersion
	}
	w.cfg.Queue.Put(objects.Ref{Kind: objects.KindMesh}, mesh)
}

// named watches objects of one name, in one namespace or all ("").
func named(c kubernetes.Interface, namespace, name string) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(c, 0,
		informers.WithNamespace(namespace),
		informers.WithTransform(newStripper().strip),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
		}))
}

// managedObjects watches the metadata of what was provisioned, of one kind.
func managedObjects(c Clients, resource schema.GroupVersionResource) cache.SharedIndexInformer {
	return metadatainformer.NewFilteredMetadataInformer(c.Metadata, resource, metav1.NamespaceAll, 0, cache.Indexers{},
		func(o *metav1.ListOptions) { o.LabelSelector = provision.LabelManaged + "=" + provision.Managed }).Informer()
}
