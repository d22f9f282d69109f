package kube

import (
	"context"
	"sync"

	istioinformers "istio.io/client-go/pkg/informers/externalversions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	gatewayinformers "sigs.k8s.io/gateway-api/pkg/client/informers/externalversions"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// sources make the informers of custom kinds.
type sources struct {
	istio   istioinformers.SharedInformerFactory
	gateway gatewayinformers.SharedInformerFactory
}

// definitions are the custom kinds that are watched while they are defined, by
// the name of their definition.
var definitions = map[string]func(sources) cache.SharedIndexInformer{
	"authorizationpolicies.security.istio.io": func(s sources) cache.SharedIndexInformer {
		return s.istio.Security().V1().AuthorizationPolicies().Informer()
	},
	"peerauthentications.security.istio.io": func(s sources) cache.SharedIndexInformer {
		return s.istio.Security().V1().PeerAuthentications().Informer()
	},
	"requestauthentications.security.istio.io": func(s sources) cache.SharedIndexInformer {
		return s.istio.Security().V1().RequestAuthentications().Informer()
	},
	"destinationrules.networking.istio.io": func(s sources) cache.SharedIndexInformer {
		return s.istio.Networking().V1().DestinationRules().Informer()
	},
	"serviceentries.networking.istio.io": func(s sources) cache.SharedIndexInformer {
		return s.istio.Networking().V1().ServiceEntries().Informer()
	},
	"gatewayclasses.gateway.networking.k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Gateway().V1().GatewayClasses().Informer()
	},
	"gateways.gateway.networking.k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Gateway().V1().Gateways().Informer()
	},
	"httproutes.gateway.networking.k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Gateway().V1().HTTPRoutes().Informer()
	},
	"grpcroutes.gateway.networking.k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Gateway().V1().GRPCRoutes().Informer()
	},
	"tlsroutes.gateway.networking.k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Gateway().V1().TLSRoutes().Informer()
	},
	"tcproutes.gateway.networking.k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Gateway().V1().TCPRoutes().Informer()
	},
	"xmeshes.gateway.networking.x-k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Experimental().V1alpha1().XMeshes().Informer()
	},
	"xbackendtrafficpolicies.gateway.networking.x-k8s.io": func(s sources) cache.SharedIndexInformer {
		return s.gateway.Experimental().V1alpha1().XBackendTrafficPolicies().Informer()
	},
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// custom runs an informer per custom kind, from when its definition appears
// until it goes.
type custom struct {
	w     *Watcher
	ctx   context.Context // of the Run that owns it
	known cache.ResourceEventHandlerRegistration

	mu      sync.Mutex
	running map[string]*customKind
	tasks   sync.WaitGroup
}

type customKind struct {
	informer cache.SharedIndexInformer
	synced   cache.InformerSynced
	stop     context.CancelFunc
	done     chan struct{}
}

func newCustom(ctx context.Context, w *Watcher) *custom {
	return &custom{w: w, ctx: ctx, running: map[string]*customKind{}}
}

// wait returns once all informers ended; ctx must have ended before.
func (c *custom) wait() { c.tasks.Wait() }

// informer watches the definitions themselves.
func (c *custom) informer() (cache.SharedIndexInformer, error) {
	i := metadatainformer.NewSharedInformerFactoryWithOptions(c.w.cfg.Clients.Metadata, 0,
		metadatainformer.WithTransform(c.w.strip.strip)).ForResource(crdResource).Informer()
	var err error
	c.known, err = c.w.follow(i, cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { c.appeared(o.(metav1.Object).GetName()) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if m, ok := o.(metav1.Object); ok {
				c.gone(m.GetName())
			}
		},
	})
	return i, err
}

func (c *custom) appeared(name string) {
	build := definitions[name]
	c.mu.Lock()
	defer c.mu.Unlock()
	if build == nil || c.running[name] != nil || c.ctx.Err() != nil {
		return
	}
	i := build(sources{
		istio:   istioinformers.NewSharedInformerFactoryWithOptions(c.w.cfg.Clients.Istio, 0, istioinformers.WithTransform(c.w.strip.strip)),
		gateway: gatewayinformers.NewSharedInformerFactoryWithOptions(c.w.cfg.Clients.Gateway, 0, gatewayinformers.WithTransform(c.w.strip.strip)),
	})
	reg, err := c.w.follow(i, c.w.queueing())
	if err != nil {
		c.w.cfg.Logger.Error("watching a custom kind", "definition", name, "reason", err)
		return
	}
	ctx, stop := context.WithCancel(c.ctx)
	kind := &customKind{informer: i, synced: reg.HasSynced, stop: stop, done: make(chan struct{})}
	c.running[name] = kind
	c.tasks.Go(func() { defer close(kind.done); i.RunWithContext(ctx) })
	c.w.cfg.Queue.Put(definitionRef(name), &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}})
	c.w.cfg.Logger.Info("watching a custom kind", "definition", name)
}

// gone stops watching; the objects went with their definition.
func (c *custom) gone(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := c.running[name]
	if kind == nil {
		return
	}
	delete(c.running, name)
	kind.stop()
	<-kind.done // or a late event could bring an object back
	for _, o := range kind.informer.GetStore().List() {
		c.w.put(o, true)
	}
	c.w.cfg.Queue.Put(definitionRef(name), nil)
	c.w.cfg.Logger.Info("a custom kind is no longer defined", "definition", name)
}

func definitionRef(name string) objects.Ref {
	return objects.Ref{Kind: objects.KindDefinition, Key: objects.Key{Name: name}}
}

// synced reports whether every kind that is defined has been read.
func (c *custom) synced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range c.running {
		if !kind.synced() {
			return false
		}
	}
	return true
}
